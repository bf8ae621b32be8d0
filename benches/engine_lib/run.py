"""Runs commands; errors say what to do."""

import subprocess
import sys
import time


class Failure(Exception):
    """Ends the benchmark with a message for the user."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def heading(text):
    say(f"\n== {text}")


def run(command, **options):
    """Runs a command and returns its output; an error quotes all of it."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", **options)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def seconds_of(commands, env, log):
    """The time of the commands, one after the other, from first fork to last exit."""
    with open(log, "wb") as output:
        start = time.perf_counter()
        for command in commands:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                    env=env).returncode
            if status != 0:
                raise Failure(f"{' '.join(command)}: status {status}")
        return time.perf_counter() - start


def tail(log):
    """The last lines of the commands' output."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
