"""Every Fabric task. The last lines are the table of contents; ./fab -l lists it, ./fab --help <task> explains a task.

Task <group>.<name> runs scripts/<group>/<name>.py, here or, with -H <host>, in the project's folder on that host.
"""

import contextlib
import shlex
import sys
import time

import fabric
from invoke import Collection, Exit

from potstill import runners
from potstill.stop import BUSY, Stop

HELP = {
    "workload": "default: the one in configs/project.yaml",
    "run": "default: the newest run of the workload",
    "config": "name of a YAML file of the stage's configs",
    "override": "key=value, overrides a key of the config; repeatable",
    "dry_run": "say what would be written or sent, and do neither",
}
# the default of such an option must be None
REPEATABLE = ("override", "predictions")


def script(c, name, here=False, **options):
    """Runs scripts/<group>/<name>.py in the context `c`; every option that is set becomes --option=value."""
    module(c, f"scripts.{name}", runners.flags(**options), here)


def module(c, name, words, here=False):
    """python -m <name> <words>: here for an invoke Context, on its host for a fabric Connection.

    The only place that knows local from remote. With `here` a Connection only names the host, as --host=<name>.
    A step that fails ends fab with the step's own exit code.
    """
    with stops():
        if not isinstance(c, fabric.Connection):
            code = runners.follow(c.run, shlex.join([sys.executable, "-m", name, *words]))
        else:
            # pydantic takes as long to import as all else; only -H needs it
            from potstill import hosts

            if here:
                words = [sys.executable, "-m", name, f"--host={hosts.name_of(c)}", *words]
                code = runners.follow(c.local, shlex.join(words))
            else:
                connection, host = hosts.checked(c)
                with connection:
                    code = runners.follow(connection.run, hosts.command(host, name, words))
    if code:
        raise Exit(code=code)


@contextlib.contextmanager
def stops():
    """Ends fab as a script ends: with one line and the documented code."""
    try:
        yield
    except Stop as stop:
        raise Exit(f"error: {stop}", code=stop.code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted; run the same command again to go on", code=BUSY) from None


def task(function):
    """A Fabric task with the help of the options it has."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    help = {name: text for name, text in HELP.items() if name in names}
    return fabric.task(function, help=help, iterable=[name for name in names if name in REPEATABLE])


@task
def samples(c, workload=None, seed=None, dry_run=False):
    """Write the committed samples of a workload anew from its seeded generator."""
    script(c, "dataset.samples", workload=workload, seed=seed, dry_run=dry_run)


@task
def convert(c, workload=None, dry_run=False):
    """Samples or a workload's own logs -> exemplars in data/raw/dataset.duckdb."""
    script(c, "dataset.convert", workload=workload, dry_run=dry_run)


@task
def clean(c, workload=None):
    """Exemplars -> valid examples in clean.jsonl, and rejected.jsonl with reasons."""
    script(c, "dataset.clean", workload=workload)


@task
def split(c, workload=None, dry_run=False):
    """clean.jsonl -> a new snapshot (train, val, test) and a leakage report."""
    script(c, "dataset.split", workload=workload, dry_run=dry_run)


@task
def stats(c, workload=None, config=None, override=None):
    """Counts, lengths and slot coverage of the processed files."""
    script(c, "dataset.stats", workload=workload, config=config, override=override)


@task
def prepare(c, workload=None, run=None, config=None, override=None, dry_run=False):
    """A new run: snapshot, base and resolved train config in models/<run>/."""
    script(c, "train.prepare", workload=workload, run=run, config=config, override=override, dry_run=dry_run)


@task
def run(c, workload=None, run=None):
    """Fine-tune the run, going on from its last checkpoint."""
    script(c, "train.run", workload=workload, run=run)


@task
def pretrain(c, config=None, override=None):
    """Make the nano base, models/nano/, from synthetic text."""
    script(c, "train.pretrain", config=config, override=override)


@task
def generate(c, workload=None, run=None, backend=None, split=None, limit=None, filter=None):
    """Answers of the trained model, its base or always-null to a split."""
    script(c, "eval.generate", workload=workload, run=run, backend=backend, split=split, limit=limit, filter=filter)


@task
def judge(c, workload=None, run=None, config=None, override=None, predictions=None, partial=False):
    """Score every slot of every answer, or of the named --predictions."""
    options = {"config": config, "override": override, "predictions": predictions, "partial": partial}
    script(c, "eval.judge", workload=workload, run=run, **options)


@task
def report(c, workload=None, run=None, gate=False):
    """Verdicts -> reports/<run>/report.{json,md,html}."""
    script(c, "eval.report", workload=workload, run=run, gate=gate)


@task
def chat(c, workload=None, run=None, artifact=None, task=None, message=None):
    """Talk to the run's model or to a packaged artifact."""
    script(c, "eval.chat", workload=workload, run=run, artifact=artifact, task=task, message=message)


@task
def export(c, workload=None, run=None, config=None, override=None, dry_run=False):
    """Run -> deployable artifacts and manifest in models/<run>/package/."""
    script(c, "package.export", workload=workload, run=run, config=config, override=override, dry_run=dry_run)


@task
def verify(c, workload=None, run=None, folder=None):
    """Check every file of the package, or of a --folder, against its manifest."""
    script(c, "package.verify", workload=workload, run=run, folder=folder)


@task
def parity(c, workload=None, run=None, config=None, override=None):
    """Do the packaged artifacts answer like the merged model?"""
    script(c, "package.parity", workload=workload, run=run, config=config, override=override)


@task
def doctor(c, workload=None):
    """Check this machine: environment, disk, data, programs."""
    script(c, "ops.doctor", workload=workload)


@task
def project_tokens(c, workload=None):
    """Measured tokens per call x calls per day, against the daily budget."""
    script(c, "ops.project_tokens", workload=workload)


@task
def push(c, workload=None, run=None, setup=False, dry_run=False):
    """Send code, snapshot, base and run to the host of -H."""
    script(c, "ops.push", here=True, workload=workload, run=run, setup=setup, dry_run=dry_run)


@task
def fetch(c, workload=None, run=None, checkpoints=False, dry_run=False):
    """Bring the run and its reports back from the host of -H."""
    script(c, "ops.fetch", here=True, workload=workload, run=run, checkpoints=checkpoints, dry_run=dry_run)


@task
def demo(c, workload=None):
    """The whole chain with the nano base, from samples to a packaged model that answers."""
    from potstill import project
    from potstill import workload as workloads

    with stops():
        workload = workload or project.load_project().workload
        message = workloads.load(workload).settings.demo_message
    name = project.new_run_name(workload, "nano")
    run = {"workload": workload, "run": name}
    steps = [
        ("ops.doctor", {"workload": workload}),
        *[(f"dataset.{step}", {"workload": workload}) for step in ("convert", "clean", "split", "stats")],
        ("train.prepare", run | {"config": "nano"}),
        ("train.run", run),
        *[("eval.generate", run | {"backend": backend}) for backend in ("merged", "base", "null")],
        # before export, so that the manifest has the scores; after parity, so that the artifacts' answers are graded
        ("eval.judge", run),
        ("eval.report", run),
        ("package.export", run),
        ("package.parity", run),
        ("eval.judge", run),
        ("eval.report", run),
        ("package.verify", run),
        ("ops.project_tokens", {"workload": workload}),
        ("eval.chat", run | {"artifact": "gguf-q8_0", "message": message}),
    ]
    lines, started = [], time.monotonic()
    for step, options in steps:
        began = time.monotonic()
        print(f"\n== {step} {' '.join(runners.flags(**options))}", flush=True)
        script(c, step, **options)
        lines.append(f"{time.monotonic() - began:7.1f} s  {step} {options.get('backend', '')}")
    print("\n== time per stage", *lines, f"{time.monotonic() - started:7.1f} s  in all", sep="\n")
    print(f"\nread reports/{name}/report.md; the package is models/{name}/package/")


@task
def test(c, options=""):  # noqa: PT028
    """Style, types and tests; --options goes to pytest, for example --options='-k hosts -x'."""
    module(c, "ruff", ["check"])
    module(c, "ruff", ["format", "--check"])
    module(c, "mypy", [])
    module(c, "pytest", shlex.split(options))


def group(name, *tasks):
    return Collection(name, *tasks, auto_dash_names=False)


ns = Collection(
    demo,
    test,
    group("dataset", samples, convert, clean, split, stats),
    group("train", prepare, run, pretrain),
    group("eval", generate, judge, report, chat),
    group("package", export, verify, parity),
    group("ops", doctor, project_tokens, push, fetch),
    auto_dash_names=False,
)
ns.configure({"runners": {"local": runners.Local, "remote": runners.Remote}})
