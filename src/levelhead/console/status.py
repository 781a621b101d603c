"""The state of a run folder as people read it."""

from __future__ import annotations

from typing import Any

import click


def status_table(found: dict[str, Any]) -> None:
    """A line for what runs, one per stage, and what is known besides."""
    if found["running"]:
        click.echo(f"{found['run']}: {found['command']} is running (pid {found['pid']})")
    else:
        last = f", last: {found['command']}" if found["command"] else ""
        click.echo(f"{found['run']}: nothing is running ({found['state']}{last})")
    for name, stage in found["stages"].items():
        why = f"{stage['why']}; run: levelhead {name} {found['run']}" if "why" in stage else ""
        click.echo(f"  {name:<12} {stage['state']:<11}{why or _units(stage)}")
    if task := found["task"]:
        left = task["seconds_left"]
        when = "" if left is None else f", {_time(left)} left"
        click.echo(f"  now: {task['title']}: {task['done']:,} of {task['total']:,}{when}")
    if sets := found["sets"]:
        click.echo(f"  sets judged: {sets['done']:,} ({sets['reused']:,} of them before)")
    for axis, told in found["reliability"].items():
        value = "unknown" if told["reliability"] is None else f"{told['reliability']:.2f}"
        click.echo(f"  reliability so far ({axis}): {value}, {told['samples']} samples per prompt")
    if error := found["last_error"]:
        click.echo(f"  last error ({error['time']}): {ascii_line(error['message'])}")
    for name in found["damaged"]:
        click.echo(f"  not as levelhead wrote it: {name}")
    if not found["running"] and any(s["state"] == "unfinished" for s in found["stages"].values()):
        click.echo("  the command that was running goes on from there when it is given again")


def ascii_line(text: str) -> str:
    """An error message on one line, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def _units(stage: dict[str, Any]) -> str:
    if stage["state"] == "unfinished":
        return f"{stage['kept']:,} batches kept"
    if not stage["done"]:
        return ""
    reused = f" ({stage['reused']:,} of them before)" if stage["reused"] else ""
    left = f", {stage['left']:,} left of this step" if stage["left"] else ""
    return f"{stage['done']:,} batches{reused}{left}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
