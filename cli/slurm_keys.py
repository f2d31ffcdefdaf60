"""What ``--slurm`` asks for: the options of sbatch, by name."""

import difflib
import re
from collections.abc import Mapping

from cryodc.errors import InputError

OWN = ("folder", "setup", "srun-args")
"""Keys that are no options of sbatch: where scripts and output go, a command before srun, more words for srun."""
_FLAGS = (
    *("contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "no-kill", "no-requeue", "overcommit"),
    *("oversubscribe", "reboot", "requeue", "spread-job", "stepmgr", "use-min-nodes"),
)
"""Options of sbatch that may stand without a value."""
_OPTIONS = (
    *("account", "acctg-freq", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters", "comment"),
    *("constraint", "container", "container-id", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu"),
    *("cpus-per-task", "deadline", "delay-boot", "dependency", "distribution", "exclude", "export", "export-file"),
    *("extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node", "gpus-per-socket"),
    *("gpus-per-task", "gres", "gres-flags", "hint", "job-name", "kill-on-invalid-dep", "licenses", "mail-type"),
    *("mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice"),
    *("nodefile", "nodelist", "nodes", "ntasks-per-core", "ntasks-per-node", "ntasks-per-socket", "partition", "power"),
    *("prefer", "priority", "profile", "propagate", "qos", "reservation", "segment", "signal", "sockets-per-node"),
    *("switches", "thread-spec", "threads-per-core", "time", "time-min", "tmp", "tres-bind", "tres-per-task", "uid"),
    *("wait-all-nodes", "wckey", "x11"),
)
"""Options of sbatch that take a value."""
_NAMES_OF_SUBMITIT = {
    "name": "job-name",
    "timeout-min": "time",
    "tasks-per-node": "ntasks-per-node",
    "mem-gb": "mem",
}


def read_keys(text: str) -> dict[str, str | bool]:
    """What is asked of Slurm, under the names that sbatch has for it.

    Parameters
    ----------
    text
        ``key=value`` or a flag, with commas in between. What is neither belongs to the value before it.

    Raises
    ------
    InputError
        If sbatch has no such option, it needs a value, or the value is none.

    Examples
    --------
    >>> read_keys("partition=gpu,nodes=4,mail_type=END,FAIL,exclusive")
    {'partition': 'gpu', 'nodes': '4', 'mail-type': 'END,FAIL', 'exclusive': True}
    """
    found: dict[str, str | bool] = {}
    last = None
    for part in text.split(","):
        name, equals, value = part.partition("=")
        key = name.strip().lower().replace("_", "-").removeprefix("slurm-").removeprefix("--")
        if not equals and key not in _FLAGS and last is not None and found[last] is not True:
            found[last] = f"{found[last]},{part}"
            continue
        last = _NAMES_OF_SUBMITIT.get(key, key)
        _require_known(last, name, bool(equals), value)
        found[last] = f"{value}G" if key == "mem-gb" else value if equals else True
    for key in ("nodes", "ntasks-per-node"):
        if not re.fullmatch(r"[1-9]\d*", str(found.get(key, 1)), re.ASCII):
            raise InputError(f"--slurm {key} is no number", expected="a whole number from 1", found=str(found[key]))
    if "time" in found:
        minutes_of(str(found["time"]))
    return found


def _require_known(key: str, name: str, has_value: bool, value: str) -> None:
    if key not in (known := (*_OPTIONS, *_FLAGS, *OWN)):
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        raise InputError(
            "--slurm has a key that sbatch does not know for such a job",
            expected="partition=…, nodes=…, gpus-per-node=…, time=…, account=…, mem=… or another option of sbatch",
            found=name.strip() or "nothing",
            remedy=f"did you mean {' or '.join(near)}?" if near else "see `man sbatch`",
        )
    if not (value.strip() if has_value else key in _FLAGS):
        raise InputError(f"--slurm {key} has no value", expected=f"{key}=VALUE", found=name.strip() + "=" * has_value)


def n_processes_per_node(asked: Mapping[str, str | bool]) -> int:
    """As many as asked for, else one for each GPU of a node, else one.

    Examples
    --------
    >>> [n_processes_per_node(asked) for asked in ({"gpus-per-node": "a100:4"}, {"gres": "gpu:2"}, {"mem": "8G"})]
    [4, 2, 1]
    """
    if "ntasks-per-node" in asked:
        return int(asked["ntasks-per-node"])
    gpus = f"gpu:{asked['gpus-per-node']}" if "gpus-per-node" in asked else str(asked.get("gres", ""))
    counted = re.search(r"\bgpu(?::[A-Za-z][\w.-]*)?:(\d+)", gpus)
    return max(1, int(counted[1])) if counted else 1


def minutes_of(text: str) -> int:
    """A time as sbatch takes it: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s.

    Examples
    --------
    >>> [minutes_of(text) for text in ("90", "90:00", "2:30:00", "1-12", "1-0:30")]
    [90, 90, 150, 2160, 1470]
    """
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text.strip(), re.ASCII):
        raise InputError(
            "--slurm time is none", expected="minutes, h:m:s or d-h:m:s, as 90, 4:00:00 or 2-0", found=text
        )
    days, dash, rest = text.strip().rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) < 3:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    else:
        hours, minutes, seconds = parts
    return 60 * (24 * int(days or 0) + hours) + minutes + -(-seconds // 60)
