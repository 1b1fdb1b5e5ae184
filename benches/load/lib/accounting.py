"""CPU time from the kernel's own accounting in /proc, for processes and for the whole machine."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def stat_fields(pid):
    """The fields of /proc/PID/stat after the command name, which may hold spaces: state is the first."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def tree(pid):
    """A process and all its descendants."""
    children = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parent = int(stat_fields(entry.name)[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def cpu_seconds(pids):
    """CPU time of all threads of the processes, to the nanosecond. utime + stime come in ticks of ten milliseconds, which would be
    twelve microseconds a request where 800 are counted. What a thread has used that has ended is not in it: no gateway ends one
    of those that serve."""
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                nanoseconds += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return nanoseconds / 1e9


def resident_kib(pids):
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                kib += int(line.split()[1])
    return kib


def machine_busy_seconds():
    """CPU time that the whole machine has spent on anything, time stolen by the hypervisor included."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = values[:8]
    return (user + nice + system + irq + softirq + steal) / TICK


def child_seconds():
    """CPU time of the children that have ended and been waited for: the load generators."""
    times = os.times()
    return times.children_user + times.children_system
