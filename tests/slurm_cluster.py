"""A Slurm cluster of one node on this machine, for tests and benchmarks; nothing of it is left afterwards.

    with slurm_cluster(accounting=True) as cluster:
        subprocess.run(["sbatch", …], env=cluster.environment)

It needs Debian's slurm-wlm, and for accounting slurmdbd and mariadb-server. All files lie in a temporary folder of its
own, all ports are free ones on loopback. The node claims more CPUs and memory than there may be, and GPUs that are
empty files: Slurm gives them out and counts them in SLURM_GPUS_ON_NODE, but there is nothing behind them.
"""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "setpriv")
ACCOUNTING = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian puts daemons, and a user's PATH may not look
USER = pwd.getpwuid(os.getuid()).pw_name
PATIENCE = 60  # seconds until a daemon must answer
STOP = 20  # seconds until one that was asked to stop is killed

SLURM_CONF = """
ClusterName=nrcg
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_interval=2
KillWait=5
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
{accounting}
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=262144 Gres=gpu:toy:{gpus} State=UNKNOWN
{partitions}
"""
# A requeued job waits for cred_expire to pass, 120 seconds by default.
DATABASE_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
"""
WITH_ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"""
WITHOUT_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
PARTITIONS = "PartitionName=main Nodes=ALL Default=YES MaxTime=30-0 State=UP"
TUNING = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0")


def missing(*, accounting: bool = False) -> str:
    """In words, what of Debian's packages is not installed; empty where nothing is."""
    names = [name for name in SLURM + ACCOUNTING * accounting if not shutil.which(name, path=PATH)]
    packages = "slurm-wlm slurmdbd mariadb-server" if accounting else "slurm-wlm"
    return f"no {', '.join(names)} here; apt-get install {packages}" if names else ""


@dataclass
class Cluster:
    """What its users need: `environment` for Slurm's commands, and the folder with the daemons' logs."""

    folder: Path
    environment: dict[str, str]
    started: list[tuple[str, subprocess.Popen]] = field(default_factory=list)

    def run(self, *command: str, check: bool = True) -> str:
        """Output of one of Slurm's commands."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Records of all jobs of the last hour, oldest first, by the names of `scontrol show job`."""
        lines = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        pairs = [[word.partition("=") for word in line.split()] for line in lines if line.startswith("JobId=")]
        return sorted(({key: value for key, _, value in row} for row in pairs), key=lambda job: int(job["JobId"]))

    def start(self, name: str, *command: str, ready: Callable[[], bool]) -> None:
        """Start a daemon that does not outlive us, and wait until it answers."""
        log = self.folder / f"{name}.log"
        with log.open("w") as out:
            words = ["setpriv", "--pdeathsig", "TERM", "--", *command]
            process = subprocess.Popen(words, env=self.environment, stdout=out, stderr=out, start_new_session=True)
        self.started.append((name, process))
        wait_for(ready, lambda: f"{name} does not come up:\n{log.read_text()[-2000:]}", process)

    def stop(self) -> None:
        """Cancel the jobs, then stop the daemons, the last one first."""
        if any(name == "slurmctld" and process.poll() is None for name, process in self.started):
            self.run("scancel", "--user", USER, check=False)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not self.run("squeue", "--noheader", check=False), lambda: "", patience=STOP)
        for _, process in reversed(self.started):
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(
    ready: Callable[[], bool],
    complaint: Callable[[], str],
    process: subprocess.Popen | None = None,
    patience: float = PATIENCE,
) -> None:
    """Wait until `ready`; TimeoutError with the complaint where that takes too long or the process ended."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            raise TimeoutError(complaint())
        time.sleep(0.1)


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def slurm_cluster(
    *,
    accounting: bool = False,  # slurmdbd over MariaDB, so that sacct answers
    cpus: int = 4,
    gpus: int = 1,
    partitions: str = PARTITIONS,
) -> Iterator[Cluster]:
    """Start a cluster, and stop it whatever happens. RuntimeError or TimeoutError where it does not come up."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    environment |= {"PATH": f"{folder / 'bin'}:{PATH}", "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = Cluster(folder, environment)
    try:
        names = ("ctld", "slurmd", "dbd", "mariadb")
        places = dict(zip(names, free_ports(len(names)), strict=True))
        places |= {
            "folder": folder,
            "user": USER,
            "host": socket.gethostname(),
            "cpus": cpus,
            "gpus": gpus,
        }
        places["accounting"] = (WITH_ACCOUNTING if accounting else WITHOUT_ACCOUNTING).format(**places)
        (folder / "slurm.conf").write_text(SLURM_CONF.format(**places, partitions=partitions))
        devices = [folder / f"gpu{i}" for i in range(gpus)]
        for device in devices:
            device.touch()
        (folder / "gres.conf").write_text("".join(f"Name=gpu Type=toy File={device}\n" for device in devices))
        write_srun(folder)
        start_munge(cluster)
        if accounting:
            start_database(cluster, places)
        cluster.start("slurmctld", "slurmctld", "-D", "-f", cluster.environment["SLURM_CONF"], ready=up(cluster))
        cluster.start("slurmd", "slurmd", "-D", "-N", "node", ready=idle(cluster))
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def edit_profile(profile: Path, folder: Path, **changes: object) -> None:
    """Write a copy of a profile to `folder`/slurm, with lines of the user's block changed as a user would."""
    text = profile.read_text()
    for key, value in changes.items():
        text, found = re.subn(rf"^  {key}: \w+", f"  {key}: {value}", text, flags=re.M)
        assert found == 1, f"{profile}: no line {key}"
    (folder / "slurm").mkdir()
    (folder / "slurm" / "config.yaml").write_text(text)


def write_srun(folder: Path) -> None:
    """A `srun` that finds our slurm.conf, also for Snakemake's plugin, which runs it without SLURM_CONF."""
    script = folder / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
    script.chmod(0o755)


def up(cluster: Cluster) -> Callable[[], bool]:
    return lambda: "is UP" in cluster.run("scontrol", "ping", check=False)


def idle(cluster: Cluster) -> Callable[[], bool]:
    return lambda: cluster.run("sinfo", "--noheader", "--format=%T", check=False).split()[:1] == ["idle"]


def start_munge(cluster: Cluster) -> None:
    """The service by which Slurm knows who asks, with a key of its own."""
    folder = cluster.folder
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed")]
    places = [f"--socket={folder}/munge.socket", f"--log-file={folder}/munge.log", *files]
    cluster.start("munged", "munged", "--foreground", "--force", *places, ready=(folder / "munge.socket").exists)


def start_database(cluster: Cluster, places: dict) -> None:
    """MariaDB and slurmdbd; the user has the account `lab`."""
    folder, user = cluster.folder, places["user"]
    data, door = folder / "mariadb", folder / "mariadb.socket"
    install = ("mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user}", "--skip-test-db")
    cluster.run(*install, "--auth-root-authentication-method=normal", *TUNING)
    (folder / "grants.sql").write_text("GRANT ALL ON *.* TO 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';\n")
    server = [f"--datadir={data}", f"--user={user}", f"--socket={door}", f"--port={places['mariadb']}"]
    server += ["--bind-address=127.0.0.1", f"--pid-file={folder}/mariadb.pid", f"--init-file={folder}/grants.sql"]
    cluster.start("mariadbd", "mariadbd", "--no-defaults", *server, *TUNING, ready=listening(places["mariadb"]))
    conf = folder / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(DATABASE_CONF.format(**places))
    cluster.start("slurmdbd", "slurmdbd", "-D", ready=listening(places["dbd"]))
    cluster.run("sacctmgr", "--immediate", "add", "cluster", "nrcg")
    cluster.run("sacctmgr", "--immediate", "add", "account", "lab")
    cluster.run("sacctmgr", "--immediate", "add", "user", user, "account=lab")


def listening(port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections there."""

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return ready
