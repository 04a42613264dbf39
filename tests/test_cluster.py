"""The whole pipeline on a real SLURM with two nodes, started here as root: Debian's slurmctld, slurmd, munge.

Everything but two names in /etc/hosts, which are taken out again at the end, is in a temporary folder.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from microlens.network.runs import LATEST, read_checkpoint

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "slurm"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
CONF = """ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=17010
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
InactiveLimit=0
KillWait=5
MinJobAge=3600
Waittime=0
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
DebugFlags=NO_CONF_HASH
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/ctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
SlurmctldLogFile={place}/ctld.log
SlurmdLogFile={place}/slurmd.%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17011 CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17012 CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
EVENTS = "--n_flat 30 --n_pspl 30 --n_binary 30 --seed 3"
SMALL = "--batch-size 16 --d-model 8 --n-layers 1 --stem-stride 64 --dropout 0"
TRAIN, LONG = f"--epochs 6 {SMALL}", f"--epochs 30 {SMALL}"
MISSING = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
HOW = f"{', '.join(MISSING)} is not there: apt-get install --no-install-recommends {' '.join(PACKAGES)}"

pytestmark = [pytest.mark.slurm, pytest.mark.validate, pytest.mark.skipif(bool(MISSING), reason=HOW),
              pytest.mark.skipif(os.geteuid() != 0, reason="starting SLURM needs root")]


@contextlib.contextmanager
def named_hosts():
    """The names n1 and n2 for this machine, which torchrun looks up."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(before.rstrip("\n") + "\n127.0.0.1 n1 n2\n")
    try:
        yield
    finally:
        hosts.write_text(before)


@pytest.fixture(scope="module")
def place():
    """A temporary folder that all users may enter, which munged demands of every folder above its socket."""
    with tempfile.TemporaryDirectory(prefix="microlens-slurm-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def cluster(place):
    """Runs a command in the folder of a SLURM of two nodes; returns what it prints."""
    host = socket.gethostname().split(".")[0]
    (place / "state").mkdir()
    conf, key, started = place / "slurm.conf", place / "munge.key", []
    conf.write_text(CONF.format(host=host, place=place))
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {
        **os.environ, "SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1", "MICROLENS_RUNS": str(place / "runs"),
        "MICROLENS_DATA": str(place / "data"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT)}

    def start(*command):
        with open(place / "slurm.log", "a") as out:
            started.append(subprocess.Popen(command, stdout=out, stderr=out))
        return started[-1]

    def start_node(name):
        return start("slurmd", "-N", name, "-D", "-f", str(conf))

    def run(*command, **more):
        made = subprocess.run(command, cwd=place, env={**environment, **more}, capture_output=True, text=True,
                              timeout=900)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    files = {name: place / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
    with named_hosts():
        munged = start("munged", "--foreground", f"--key-file={key}", f"--socket={files['socket']}",
                       *(f"--{name}-file={files[name]}" for name in ("pid", "log", "seed")))
        while not files["socket"].exists():
            assert munged.poll() is None, (place / "slurm.log").read_text()
            time.sleep(0.1)
        start("slurmctld", "-i", "-D", "-f", str(conf))
        run.nodes = {name: start_node(name) for name in ("n1", "n2")}
        run.place, run.environment, run.start_node = place, environment, start_node
        until(run, lambda: run("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60, "two idle nodes")
        yield run
        subprocess.run(["scancel", "--user=root", "--full", "--signal=KILL"], env=environment)
        subprocess.run(["scancel", "--user=root"], env=environment)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def until(cluster, condition, seconds, what):
    """Wait for a condition, but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds} s\n{cluster('squeue')}\n{logs(cluster)}"
        time.sleep(0.5)


def wait(cluster, seconds, *which):
    """Until no job is left in the queue."""
    until(cluster, lambda: not cluster("squeue", "-h", *which), seconds, "empty queue")


def processes(cluster, **of):
    """Ids of the processes whose environment says that they belong to this cluster and to `of`."""
    wanted = {f"{k}={v}".encode() for k, v in {"SLURM_CONF": cluster.environment["SLURM_CONF"], **of}.items()}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                yield int(entry.name)
        except OSError:  # it has ended
            continue


def logs(cluster):
    files = sorted(cluster.place.glob("microlens-*.log"))
    return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in files)


def trained_at_once(cluster, name, flags):
    """Weights of the same training on two ranks of one node, uninterrupted.

    One rank adds up in another order, which each pass of such a small training amplifies: from 7e-7 after one pass to
    1e-3 after six.
    """
    cluster("torchrun", "--nproc-per-node", "2", "-m", "microlens", "train", "-f", str(SLURM / "train_baseline.yaml"),
            "--data", "x.h5", "--experiment-name", name, *flags.split())
    return weights(cluster, name)


def weights(cluster, name):
    return read_checkpoint(cluster.place / "runs" / name / LATEST)["model"]


def assert_same(a, b):
    """Nodes may add up in another order than the ranks of one node."""
    assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


def passes_logged(cluster, name):
    path = cluster.place / "runs" / name / "log.jsonl"
    return [json.loads(x)["epoch"] for x in path.read_text().splitlines()] if path.exists() else []


def test_pipeline_in_links_ends_like_one_uninterrupted_training(cluster):
    # A wall-clock budget of nothing: each link takes one step, on a machine of any speed. After three the chain ends.
    sizes = {"DATA": "x.h5", "NAME": "chain", "TRAIN": TRAIN, "TASKS": "2", "NODES": "2", "CPUS": "1", "GPUS": "",
             "LOCAL": str(cluster.place / "local")}
    cluster("bash", str(SLURM / "pipeline.sh"), EVENTS=EVENTS, WALL_MINUTES="1e-9", LINKS="2", **sizes)
    wait(cluster, 300)
    run, links = cluster.place / "runs" / "chain", sorted(cluster.place.glob("microlens-train_*.log"))
    texts = [p.read_text(errors="replace") for p in links]
    assert len(links) == 3 and sum("--wall-minutes 1e-09 is used up" in text for text in texts) == 3, logs(cluster)
    assert any("resuming chain at pass 0, batch 2" in text for text in texts) and not (run / "complete").exists()
    # Submitted once more it goes on to the end, and then evaluates and draws.
    cluster("sbatch", "--nodes=2", str(SLURM / "train.sbatch"), WALL_MINUTES="0", LINKS="0", SLURM_FOLDER=str(SLURM),
            **sizes)
    wait(cluster, 400)
    assert (run / "complete").exists(), logs(cluster)
    jobs = [p.stem.split("_")[1] for p in cluster.place.glob("microlens-*_*.log")]
    states = [cluster("scontrol", "show", "job", job) for job in jobs]
    assert all("JobState=COMPLETED" in state and "ExitCode=0:0" in state for state in states), logs(cluster)
    drawn, scored = (pd.read_csv(run / folder / "confusion_matrix.csv") for folder in ("figures", "eval"))
    assert drawn.equals(scored) and (run / "figures" / "confusion_matrix.pdf").exists(), logs(cluster)
    assert list((cluster.place / "local" / "microlens" / "cache").glob("*.flux.npy"))
    assert_same(weights(cluster, "chain"), trained_at_once(cluster, "whole", TRAIN))
    assert passes_logged(cluster, "chain") == list(range(1, 7))


@pytest.fixture(scope="module")
def whole(cluster):
    """Weights of an uninterrupted training with the flags of LONG, on the pipeline's data."""
    cluster(sys.executable, "-m", "microlens", "simulate", "-f", str(SLURM / "simulate_baseline.yaml"), *EVENTS.split(),
            "--output", "x.h5", "--num_workers", "1")
    return trained_at_once(cluster, "long", LONG)


def submit(cluster, name, links):
    flags = "--nodes=2 --cpus-per-task=1 --time=00:20:00"
    return cluster("sbatch", "--parsable", *flags.split(), str(SLURM / "train.sbatch"), DATA="x.h5", NAME=name,
                   TRAIN=LONG, WALL_MINUTES="0", LINKS=links, NODE_FLAGS=flags, SLURM_FOLDER=str(SLURM))


def finish(cluster, name):
    wait(cluster, 400, "--name=microlens-train")
    assert (cluster.place / "runs" / name / "complete").exists(), logs(cluster)
    assert sorted(cluster("squeue", "-h", "-o", "%j").split()) == ["microlens-evaluate", "microlens-figures"]
    cluster("scancel", "--name=microlens-evaluate")
    cluster("scancel", "--name=microlens-figures")
    wait(cluster, 60)


def test_link_that_hits_its_time_limit_is_continued(cluster, whole):
    job = submit(cluster, "limit", "2")
    until(cluster, lambda: len(passes_logged(cluster, "limit")) >= 2, 300, "second pass")
    for process in processes(cluster, SLURM_JOB_ID=job):  # as slow as can be, so that the limit comes first anywhere
        os.kill(process, signal.SIGSTOP)
    cluster("scontrol", "update", f"jobid={job}", "timelimit=1")  # in minutes, from the job's start
    until(cluster, lambda: "JobState=TIMEOUT" in cluster("scontrol", "show", "job", job), 180, "TIMEOUT")
    assert not (cluster.place / "runs" / "limit" / "complete").exists()
    finish(cluster, "limit")
    assert_same(weights(cluster, "limit"), whole)


def test_node_that_fails_is_survived(cluster, whole):
    job = submit(cluster, "failure", "0")
    until(cluster, lambda: len(passes_logged(cluster, "failure")) >= 2, 300, "second pass")
    cluster.nodes["n2"].kill()
    for process in processes(cluster, SLURMD_NODENAME="n2"):
        os.kill(process, signal.SIGKILL)
    cluster("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    assert not (cluster.place / "runs" / "failure" / "complete").exists()
    until(cluster, lambda: "Restarts=1" in cluster("scontrol", "show", "job", job), 120, "requeued job")
    cluster.nodes["n2"] = cluster.start_node("n2")
    cluster("scontrol", "update", "nodename=n2", "state=resume")
    finish(cluster, "failure")
    assert "resuming failure at pass" in (cluster.place / f"microlens-train_{job}.log").read_text()
    assert_same(weights(cluster, "failure"), whole)
