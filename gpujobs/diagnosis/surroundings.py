"""Where are we: in a login session that ends, in a container, in an environment that sets things?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpujobs.diagnosis.words import ADMINISTRATOR
from gpujobs.facts import ContainerFacts, Facts, SessionFacts
from gpujobs.findings import Finding, Topic

LOGOUT = Topic("session.logout", "a run that is still going may be ended when you log out")
PLACE = Topic("container.place", "in a container the driver's process numbers, the devices and the board may be others")
MASK = Topic("environment.devices", "a list of visible devices limits what CUDA and gpujobs may use")
BINDING = Topic("environment.threads", "thread binding may tie all threads of a job to one CPU, whatever it was given")
ORDER = Topic("environment.order", "CUDA counts devices by speed unless told otherwise, nvidia-smi by PCI bus")

_LINGER = "`loginctl enable-linger`"
_FALSE = {"", "false"}


def session(found: SessionFacts, facts: Facts) -> Iterator[Finding]:
    """What happens to what runs in the background on logout."""
    if not found.systemd:
        yield LOGOUT.note("there is no systemd here: background runs go on, as far as anybody can tell")
        return
    if found.lingers is None:
        yield LOGOUT.unknown(found.errors.get("lingers"))
        return
    linger = "lingering is on" if found.lingers else "lingering is off"
    if found.managed:
        yield _managed(linger, found.lingers, facts.user)
    elif found.kills:
        yield LOGOUT.warning(
            f"logind ends what a session started (KillUserProcesses in {found.set_in}), {linger}",
            f"{_LINGER}, and start long runs outside of the session: `systemd-run --user --scope gpujobs run …`",
        )
    elif found.kills is None:
        reason = found.errors.get("kills") or "KillUserProcesses is not set: the distribution decides, mostly for no"
        yield LOGOUT.unknown(reason)
    else:
        yield LOGOUT.ok(f"background runs go on (KillUserProcesses=no, {linger})")


def _managed(linger: str, lingers: bool, user: str) -> Finding:
    """Below the user's own service manager: a desktop's terminal, an editor's server, systemd-run."""
    if lingers:
        return LOGOUT.ok("background runs go on (lingering is on)")
    return LOGOUT.warning(
        f"what is started here ends with the last logout of {user}: it belongs to the user's service manager, {linger}",
        f"{_LINGER}; if that is refused, {ADMINISTRATOR}`sudo loginctl enable-linger {user}`",
    )


def container(found: ContainerFacts, facts: Facts) -> Iterator[Finding]:
    """What being in a container hides."""
    signs = f" ({', '.join(found.signs)})" if found.signs else ""
    if found.own_pids:
        yield PLACE.warning(
            f"process numbers here are not the driver's{signs}: programs on the GPUs have no name, but count",
            "start the container with the host's processes and board: `docker run --pid=host -v BOARD:BOARD`",
        )
    elif found.signs:
        yield PLACE.note(
            f"a container{signs}",
            "mount the board of the host into it, or people outside do not see what is claimed here",
        )
    elif found.own_pids is None:
        yield PLACE.unknown(found.errors.get("own_pids"))
    else:
        yield PLACE.ok("no container")


def environment(variables: Mapping[str, str], facts: Facts) -> Iterator[Finding]:
    """Variables that change what jobs get. Those that are not set are no finding, but that none is."""
    masks = [
        f"{name}={variables[name]}" for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES") if name in variables
    ]
    if "CUDA_VISIBLE_DEVICES" in variables:
        yield MASK.note(f"{', '.join(masks)}: runs get no other devices", "`unset CUDA_VISIBLE_DEVICES` to use all")
    elif masks:
        yield MASK.note(f"{masks[0]}: chosen where the container was started")
    else:
        yield MASK.ok("no variable hides devices")
    bound = [
        f"{name}={variables[name]}"
        for name in ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY")
        if variables.get(name, "").strip().lower() not in _FALSE
    ]
    if bound:
        yield BINDING.warning(" ".join(bound), "`unset OMP_PROC_BIND GOMP_CPU_AFFINITY`: gpujobs pins its runs itself")
    else:
        yield BINDING.ok("threads are not bound")
    order = variables.get("CUDA_DEVICE_ORDER", "")
    if order not in ("", "PCI_BUS_ID"):
        yield ORDER.note(
            f"CUDA_DEVICE_ORDER={order}: programs outside of gpujobs count other devices; runs get PCI_BUS_ID",
            "`export CUDA_DEVICE_ORDER=PCI_BUS_ID`",
        )
    else:
        yield ORDER.ok(order or "not set; runs get PCI_BUS_ID")
