#!/bin/sh
# Prints what is at a destination and beside it. It only reads.
#
# $1 is the destination. $2 is `sudo` where sudo may read what this account may not.
# The client joins these lines to one, so each command ends in `;`.
#
# Each field of the answer ends in a zero byte:
#   the nearest existing directory of the path, as it was given
#   its path without symbolic links, then a line break and an x
#   boot ID, device:inode: whether the directory is one of the client's own machine
#   inode:birth
#   snapshot roots from here up to /, then `.`
#   `n` without .rsyncd-snapshot beside the destination, `r` and root.toml, `u` if it is unreadable
#   directories beside it whose names may be those of snapshots, then `/`
#   the entries of the destination, then `e`. Without the `e` the list is incomplete.
CDPATH=;
d=$1;
while [ ! -d "$d" ]; do
    case $d in
        */*) d=${d%/*}; [ -n "$d" ] || d=/;;
        *) d=.;;
    esac;
done;
printf '%s\0' "$d";
cd -P -- "$d" || exit 1;
# The x keeps line breaks at the end of the path.
printf '%s\0' "$(pwd -P; printf x)";
printf '%s\0' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)";
printf '%s\0' "$(stat -c %d:%i . 2>/dev/null)" "$(stat -c %i:%W . 2>/dev/null)";
p=$(pwd -P);
while :; do
    [ ! -d "$p/.rsyncd-snapshot" ] || printf '%s\0' "$p";
    [ -n "$p" ] || break;
    p=${p%/*};
done;
printf '.\0';
(
    if [ "$d" = "$1" ]; then cd -P .. || exit 1; fi;
    f=$(pwd -P)/.rsyncd-snapshot;
    if [ ! -d "$f" ]; then
        printf n;
    elif t=$(cat "$f/root.toml" 2>/dev/null) ||
        { [ "$2" = sudo ] && t=$(sudo -n cat "$f/root.toml" 2>/dev/null); }; then
        printf 'r%s' "$t";
    else
        printf u;
    fi;
    printf '\0';
    find . ! -name . -prune -type d -name '[0-9]*' -print0 2>/dev/null | head -c 200000;
    printf '/\0';
) || exit 1;
if [ "$d" = "$1" ]; then
    { find . ! -name . -prune -print0 && printf e; } | head -c 500000;
else
    printf e;
fi
