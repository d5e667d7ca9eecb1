"""Grades two models' answers slot by slot, as eval.judge does, as far as rules decide."""

from potstill import grading, project, slots
from potstill.parity import Slots
from potstill.records import Example, Prediction
from potstill.workload import Workload


class Grader:
    """Remembers how each answer was graded: most artifacts give the merged model's."""

    def __init__(self, job: Workload, examples: list[Example]):
        self.levels, self.own = slots.load_levels(project.CONFIGS / "judge_slots.yaml"), job.levels
        self.examples = {example.id: example for example in examples}
        self.known: dict[tuple[str, str], dict[str, bool | None]] = {}

    def passed(self, row: Prediction) -> dict[str, bool | None]:
        """By slot: whether it passed; None where the judge must be asked or the rule failed."""
        key = row.id, row.output
        if key not in self.known:
            grades = grading.grade(self.examples[row.id], row, self.levels, self.own)
            self.known[key] = {g.slot: g.decided.passed if g.decided is not None else None for g in grades}
        return self.known[key]

    def compare(self, rows: list[tuple[Prediction, Prediction]]) -> Slots:
        """`rows` has the artifact's and the merged model's answer to each prompt.

        Only slots that are decided in both count, so that no side gains by what the judge would have to say. A list
        that is longer in one answer has slots there that the other lacks: they count as not passed in the other.
        """
        scored = left_out = artifact = merged = 0
        for own, other in rows:
            mine, theirs = self.passed(own), self.passed(other)
            for slot in mine.keys() | theirs.keys():
                pair = mine.get(slot, False), theirs.get(slot, False)
                if None in pair:
                    left_out += 1
                else:
                    scored, artifact, merged = scored + 1, artifact + bool(pair[0]), merged + bool(pair[1])
        if not scored:
            return Slots(scored=0, left_out=left_out, merged=None, artifact=None, drop=None)
        return Slots(
            scored=scored,
            left_out=left_out,
            merged=merged / scored,
            artifact=artifact / scored,
            drop=(merged - artifact) / scored,
        )
