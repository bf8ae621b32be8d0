#!/bin/sh
# Prints the line of df for the file system of $1. If $1 does not exist, its nearest existing parent
# counts, because the first backup makes the directories that are missing.
# The client joins these lines to one, so each command ends in `;`.
d=$1;
while [ ! -d "$d" ]; do
    d=$(dirname -- "$d");
done;
df -P -k -- "$d" | tail -n 1
