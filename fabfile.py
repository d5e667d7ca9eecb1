"""Every Fabric task. The last lines are the table of contents; ./fab -l lists it, ./fab --help <task> explains a task.

Task <group>.<name> runs scripts/<group>/<name>.py, here or, with -H <host>, in the project's folder on that host.
"""

import functools
import shlex
import sys

import fabric
from invoke import Collection, Exit

from potstill import runners
from potstill.tasks import task


def script(c, name, here=False, **options):
    """Runs scripts/<group>/<name>.py in the context `c`; every option that is set becomes --option=value."""
    module(c, f"scripts.{name}", runners.flags(**options), here)


def module(c, name, words, here=False):
    """python -m <name> <words>: here for an invoke Context, on its host for a fabric Connection.

    The only place that knows local from remote. With `here` a Connection only names the host, as --host=<name>.
    A step that fails ends fab with the step's own exit code.
    """
    with runners.stops():
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


def step(name, here=False):
    """A Fabric task that runs scripts/<group>/<name>.py: its parameters are the script's options."""

    def wrap(function):
        @functools.wraps(function)
        def body(c, **options):
            script(c, name, here, **options)

        return task(body, name.partition(".")[2])

    return wrap


@step("dataset.samples")
def samples(c, workload=None, seed=None, dry_run=False):
    """Write the committed samples of a workload anew from its seeded generator."""


@step("dataset.convert")
def convert(c, workload=None, override=None, dry_run=False):
    """Samples or a workload's own logs -> exemplars in data/raw/dataset.duckdb."""


@step("dataset.generate")
def exemplars(
    c, workload=None, count=None, seed=None, model=None, api_base=None, max_cost=None, price=None, max_tokens=None,
    concurrency=None, retries=None, timeout=None, yes=False, dry_run=False,
):  # fmt: skip
    """Exemplars from the workload's seeded generator, or a strong model's answers to its prompts."""


@step("dataset.pull")
def pull(c, source=None, workload=None, port=None, bwlimit=None, dry_run=False):
    """user@server:/path/dataset.duckdb, or a local file -> data/raw/dataset.duckdb, verified."""


@step("dataset.clean")
def clean(c, workload=None):
    """Exemplars -> valid examples in clean.jsonl, and rejected.jsonl with reasons."""


@step("dataset.augment")
def augment(c, workload=None, dry_run=False):
    """Train-only variants of clean rows -> augmented.jsonl."""


@step("dataset.split")
def split(c, workload=None, dry_run=False):
    """clean.jsonl -> a new snapshot (train, val, test) and a leakage report."""


@step("dataset.stats")
def stats(c, workload=None, config=None, override=None):
    """Counts, lengths and slot coverage of the processed files."""


@step("dataset.preview")
def preview(c, workload=None, id=None, number=None, split=None, full=False, config=None, override=None):
    """A row as logged, as reduced, and as tokens with the loss mask."""


@step("dataset.diff")
def diff(c, workload=None, old=None, new=None):
    """What changed between two snapshots, slot by slot."""


@step("dataset.takedown")
def takedown(c, workload=None, id=None, domain=None, tenant=None, no_consent=False, reason=None, dry_run=False):
    """Remove rows everywhere, for good, and list what was trained on them."""


@step("train.prepare")
def prepare(c, workload=None, run=None, config=None, override=None, dry_run=False):
    """A new run: snapshot, base (its vocabulary trimmed) and resolved train config in models/<run>/."""


@step("train.estimate")
def estimate(c, workload=None, run=None, measure=False, price_per_hour=None, processes=None):
    """Memory, time and cost of a prepared run here, from its shapes or from 20 real steps."""


@step("train.run")
def run(c, workload=None, run=None, processes=None, auto_batch=False):
    """Fine-tune the run, going on from its last checkpoint."""


@step("train.resume")
def resume(c, workload=None, run=None, override=None, processes=None, auto_batch=False, dry_run=False):
    """Go on with an interrupted run under a changed config, which is noted."""


@step("train.pretrain")
def pretrain(c, config=None, override=None):
    """Make the nano base, models/nano/, from synthetic text."""


@step("eval.generate")
def generate(
    c, workload=None, run=None, backend=None, split=None, limit=None, filter=None, constrained=False, answers=None,
    model=None, api_base=None, max_cost=None, price=None, concurrency=None, retries=None, timeout=None, yes=False,
    taught=False, retry_errors=False,
):  # fmt: skip
    """Answers of the trained model, its base, always-null, or a --model behind an endpoint to a split."""


@step("eval.judge")
def judge(
    c, workload=None, run=None, config=None, override=None, predictions=None, partial=False, pairwise=None,
    max_cost=None, yes=False, dry_run=False,
):  # fmt: skip
    """Score every slot of every answer, or of the named --predictions."""


@step("eval.report")
def report(c, workload=None, run=None, gate=False, promote=False, baseline=None):
    """Verdicts -> reports/<run>/report.{json,md,html}; --gate ends with its verdict, --promote moves the alias."""


@step("eval.calibrate")
def calibrate(c, workload=None, run=None, labels=None, sample=None, days=None):
    """Does the judge agree with people? Labels on its verdicts -> configs/certificates/<w>.json."""


@step("eval.compare")
def compare(c, workload=None, a=None, b=None, samples=None):
    """Two sets of answers to the same test rows: base against tuned, or run against run; --samples times them."""


@step("eval.chat")
def chat(c, workload=None, run=None, artifact=None, task=None, compare=False, message=None, example=None):
    """Talk to the run's model or to a packaged artifact; with --compare to the untuned base as well."""


@step("package.export")
def export(c, workload=None, run=None, config=None, override=None, dry_run=False):
    """Run -> deployable artifacts and manifest in models/<run>/package/."""


@step("package.keygen")
def keygen(c, key=None, keys=None, passphrase_file=None, passphrase_env=None):
    """The key pair that signs packages, outside the repository."""


@step("package.verify")
def verify(c, workload=None, run=None, folder=None, public_key=None, replaces=None):
    """Is the package whole, harmless, signed, and no older than what it --replaces?"""


@step("package.parity")
def parity(c, workload=None, run=None, config=None, override=None, all=False):
    """Do the packaged artifacts answer like the merged model, each in its own engine?"""


@step("ops.doctor")
def doctor(c, workload=None):
    """Check this machine: environment, disk, data, programs."""


@step("ops.project_tokens")
def project_tokens(c, workload=None):
    """Measured tokens per call x calls per day, against the daily budget."""


@step("ops.push", here=True)
def push(c, workload=None, run=None, setup=False, checkpoints=False, dry_run=False):
    """Send code, snapshot, base and run to the host of -H."""


@step("ops.fetch", here=True)
def fetch(c, workload=None, run=None, checkpoints=False, dry_run=False):
    """Bring the run and its reports back from the host of -H."""


@task
def demo(c, workload=None):
    """The whole chain with the nano base, from samples to a packaged model that answers."""
    from potstill import demo as chain

    chain.run(workload, functools.partial(script, c))


@task
def test(c, options=""):  # noqa: PT028
    """Style, types and tests; --options goes to pytest, for example --options='-k hosts -x'."""
    module(c, "ruff", ["check"])
    module(c, "ruff", ["format", "--check"])
    module(c, "mypy", [])
    module(c, "pytest", ["-n", "auto", "--maxprocesses", "4", *shlex.split(options)])


group = functools.partial(Collection, auto_dash_names=False)

ns = Collection(
    demo,
    test,
    group("dataset", samples, convert, exemplars, pull, clean, augment, split, stats, preview, diff, takedown),
    group("train", prepare, estimate, run, resume, pretrain),
    group("eval", generate, judge, calibrate, report, compare, chat),
    group("package", keygen, export, verify, parity),
    group("ops", doctor, project_tokens, push, fetch),
    auto_dash_names=False,
)
ns.configure({"runners": {"local": runners.Local, "remote": runners.Remote}})
