"""How well does the judge agree with people? Labels on judged answers -> configs/certificates/<workload>.json.

Run: python -m scripts.eval.calibrate -r <run> --sample 100          a sheet of judged answers, to be labelled
     python -m scripts.eval.calibrate -r <run> --labels sheet.jsonl  the certificate, which the gate reads
docs/gate.md has the contract of a label file.
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from potstill import calibration, certificate, cli, comparing, grading, project, workload
from potstill.calibration import Label, Matched
from potstill.certificate import Agreement, Certificate
from potstill.comparing import Answers
from potstill.files import sha256_file, stage_lock, write_json
from potstill.intervals import SEED
from potstill.records import write_jsonl
from potstill.stop import DATA, Stop


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, run=True)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--labels", type=Path, metavar="FILE", help="a filled-in sheet")
    wanted.add_argument("--sample", type=int, metavar="COUNT", help="write a sheet of so many judged answers")
    parser.add_argument("--days", type=int, default=180, help="how long the certificate holds (default: 180)")
    arguments = parser.parse_args(argv)
    for name in ("sample", "days"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise Stop(f"--{name} is {value}: want 1 or more")
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    if arguments.sample:
        write_sheet(run, arguments.sample)
        return
    labels = calibration.read_labels(arguments.labels)
    with stage_lock(project.reports(run), "eval.calibrate"):
        sides = {name: comparing.read(run, name) for name in sorted({label.answers for label in labels})}
        written, matched = certify(run, labels, sides, arguments)
        path = certificate.path_of(written.workload)
        write_json(path, written.model_dump())
    show(written, matched)
    cli.done([path], f"fab eval.report -r {run} --gate")


def write_sheet(run: str, count: int) -> None:
    rows = calibration.sheet(comparing.read(run, grading.TUNED).rows, grading.TUNED, count, SEED)
    if not rows:
        raise Stop(f"{run}: rules decided every slot, so there is nothing of a judge's to label.", DATA)
    path = project.reports(run) / "labels.jsonl"
    if path.exists():
        raise Stop(f"{path} is there already, and may hold somebody's work. Move it away.", DATA)
    write_jsonl(path, rows)
    cli.done([path], f"put pass or fail in place of null, then fab eval.calibrate -r {run} --labels {path}")


def certify(
    run: str, labels: list[Label], sides: dict[str, Answers], arguments: argparse.Namespace
) -> tuple[Certificate, Matched]:
    judges = {(side.judge_run.model, side.judge_run.prompt_sha256) for side in sides.values()}
    if len(judges) > 1:
        raise Stop(f"{run}: {', '.join(sides)} were judged otherwise. Run fab eval.judge -r {run} for all.", DATA)
    ((model, prompt_sha256),) = judges
    name = next(iter(sides.values())).record.workload
    matched = calibration.match(
        labels, {at: side.rows for at, side in sides.items()}, workload.load(name).settings.split.group
    )
    if not matched.pairs:
        raise Stop(f"{arguments.labels}: no label is on a verdict of the judge's own; rules decided those.", DATA)
    slots = sorted({pair.slot for pair in matched.pairs})
    thresholds = certificate.thresholds_of([row for side in sides.values() for row in side.rows], name)
    today = datetime.now(UTC).date()
    low, high = calibration.kappa_ci95(matched.pairs)
    found = Certificate(
        workload=name,
        run=run,
        judge=model,
        prompt_sha256=prompt_sha256,
        thresholds={slot: thresholds[slot] for slot in slots},
        created_on=today.isoformat(),
        expires_on=(today + timedelta(days=arguments.days)).isoformat(),
        labels_sha256=sha256_file(arguments.labels),
        overall=calibration.agreement(matched.pairs),
        kappa_ci95=[low, high],
        per_slot={slot: calibration.agreement(p for p in matched.pairs if p.slot == slot) for slot in slots},
    )
    return found, matched


def show(found: Certificate, matched: Matched) -> None:
    low, high = found.kappa_ci95
    print(f"judge {found.judge} against {found.overall.n} labels, valid until {found.expires_on}")
    print(f"kappa {kappa(found.overall)}, 95% interval {low:.3f} to {high:.3f}; accuracy {found.overall.accuracy:.1%}")
    print(f"{'':30}  both pass  judge only  people only  both fail   kappa")
    for name, item in {"all": found.overall, **found.per_slot}.items():
        counts = f"{item.both_pass:9}  {item.judge_only:10}  {item.human_only:11}  {item.both_fail:9}"
        print(f"{name[:30]:30}  {counts}  {kappa(item):>6}")
    left_out = {"on a verdict of a rule": matched.by_rule, "on a slot without a verdict": matched.errors}
    left_out["disputed among people"] = matched.disputed
    for why, count in left_out.items():
        if count:
            print(f"{count} labels left out: {why}")


def kappa(found: Agreement) -> str:
    return "-" if found.kappa is None else f"{found.kappa:.3f}"


if __name__ == "__main__":
    cli.run(main)
