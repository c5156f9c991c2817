"""The tables of a report. Runs without SAM are marked in each of them."""

from __future__ import annotations

from collections.abc import Iterator

from aslseg.project.run_tables import Reliability, Score
from aslseg.report import html
from aslseg.report.data import RunRecord, mean_dice, stage_name

NO_SAM = "Run without SAM."


def marked(run: RunRecord, caption: str) -> str:
    """Say in a caption that a run was without SAM, when it was."""
    return caption if run.has_sam else f"{caption} {NO_SAM}"


def headline(run: RunRecord) -> str:
    """Make the table of mean validation Dice after each stage of each round."""
    stages = [key for key in run.stages if _cases_of(run, key)]
    if not stages:
        return html.paragraph(marked(run, "No stage has been scored on validation volumes yet."))
    means = {
        (key, target): mean_dice(run.scores, stage=key, target=target)
        for key in stages
        for target in run.targets
    }
    best = {
        target: max((means[key, target].value for key in stages), default=0.0)
        for target in run.targets
    }
    rows = []
    for place, key in enumerate(stages):
        cells = [html.cell(str(key[0])), html.cell(stage_name(key[1], has_sam=run.has_sam))]
        for target in run.targets:
            mean = means[key, target]
            is_best = mean.value == best[target]
            cells.append(html.share_cell(mean.value, text=html.mean_text(mean), best=is_best))
        new_round = place > 0 and stages[place - 1][0] != key[0]
        rows.append(
            html.row([*cells, html.cell(str(_cases_of(run, key)), style="n")], first=new_round)
        )
    caption = (
        "Dice, mean ± standard deviation over validation volumes; the best of each column is bold."
    )
    head = ["Round", "Stage", *run.targets, "Volumes"]
    return html.table(head, rows, caption=marked(run, caption), text_columns=2)


def _cases_of(run: RunRecord, key: tuple[int, str]) -> int:
    scores = (s for s in run.scores if (s.round, s.stage) == key and s.split == "validation")
    return len({score.case for score in scores})


def by_case(run: RunRecord) -> Iterator[str]:
    """Make a table of all scores for each stage of each round, latest first."""
    head = ["Case", "Target", "Dice", "Jaccard", "HD95 mm", "ASSD mm", "Volume ml", "Lesions found"]
    for key in reversed(run.stages):
        scores = [s for s in run.scores if (s.round, s.stage) == key and s.split == "validation"]
        if not scores:
            continue
        title = f"Round {key[0]}, {stage_name(key[1], has_sam=run.has_sam)}: case by case"
        caption = "A dash marks a distance that is not defined because one of the masks is empty."
        rows = [_case_row(score) for score in scores]
        columns = [*head, "False lesions"]
        yield html.details(
            title, html.table(columns, rows, caption=marked(run, caption), text_columns=2)
        )


def _case_row(score: Score) -> str:
    return html.row(
        [
            html.cell(score.case),
            html.cell(score.target),
            html.share_cell(score.dice),
            html.number_cell(score.jaccard),
            html.number_cell(score.hd95_mm, 1),
            html.number_cell(score.assd_mm, 2),
            html.number_cell(score.volume_ml, 1),
            html.cell(f"{score.lesions_found} of {score.lesions_true}", style="n"),
            html.cell(str(score.false_positives), style="n"),
        ]
    )


def reliability(run: RunRecord) -> Iterator[str]:
    """Make a table of the judged pseudo-labels of each round, the most doubtful first."""
    rounds = sorted({item.round for item in run.reliability})
    if not rounds:
        yield html.paragraph(marked(run, "No pseudo-label has been judged yet."))
        return
    yield html.paragraph(
        "Least reliable first: these are the volumes that are most worth a look. The score is made "
        "of the agreement between checkpoints and that between specialist and refined label."
    )
    head = ["Case", "Joined", "Reason", "Checkpoints agree", "Voices agree", "Score"]
    for number in rounds:
        items = [item for item in run.reliability if item.round == number]
        accepted = sum(item.accepted for item in items)
        caption = (
            f"Round {number}: {accepted} of {len(items)} pseudo-labels joined the training set."
        )
        rows = [_reliability_row(item) for item in sorted(items, key=lambda item: item.score)]
        yield html.table(head, rows, caption=marked(run, caption), text_columns=3)


def _reliability_row(item: Reliability) -> str:
    return html.row(
        [
            html.cell(item.case),
            html.cell("✓ yes" if item.accepted else "no"),
            html.cell(item.reason),
            html.number_cell(item.checkpoint_agreement),
            html.number_cell(item.voice_agreement),
            html.share_cell(item.score),
        ]
    )
