"""Runs commands; errors say what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

STOPWATCH = Path(__file__).with_name("stopwatch.py")


class Failure(Exception):
    """Ends the benchmark with a message for the user."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def heading(text):
    say(f"\n== {text}")


def run(command, **options):
    """Runs a command and returns its output; an error quotes all of it."""
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", check=False, **options)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        output = f"{done.stdout}{done.stderr}"
        raise Failure(f"{' '.join(command)}: status {done.returncode}\n{output}".rstrip())
    return done.stdout


def measure(commands, log, env=None, hides_landlock=False):
    """Seconds, and seconds of a processor, that the commands took one after the other."""
    order = {"commands": commands, "log": str(log), "hides_landlock": hides_landlock}
    command = [sys.executable, "-I", "-S", str(STOPWATCH)]
    answer = json.loads(run(command, env=environment(env), input=json.dumps(order)))
    if "failure" in answer:
        raise Failure(answer["failure"])
    return answer["seconds"], answer["processor_seconds"]


def environment(additions):
    """The environment of this process with additions; `None` without additions."""
    return {**os.environ, **additions} if additions else None


def tail(log):
    """The last lines of the commands' output."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
