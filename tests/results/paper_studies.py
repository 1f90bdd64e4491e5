"""Pre-trainings with their transfers, and cells of a table of the paper."""

from results import Checkpoint, Named

PRETRAINED = {
    "mask_ratio": 0.75,
    "norm_pix": False,
    "decoder_dim": 512,
    "decoder_depth": 8,
    "min_crop_area": 0.2,
    "epochs": 800,
}


LINEAR = "imagenet1k/linear@1"


def values(table, *kinds: str) -> list[list]:
    """The table's cells of some kinds of columns, line by line."""
    return [
        [
            cell.value
            for column, cell in zip(table.columns, row, strict=True)
            if column.kind in kinds
        ]
        for row in table.rows
    ]


def notes(table, cell) -> list[str]:
    by_mark = {note.mark: note.text for note in table.notes}
    return [by_mark[mark] for mark in cell.marks]


def line(table, *labels: str) -> dict[tuple[str, str], object]:
    """(kind, title) -> cell of the only line with these labels."""
    (row,) = [
        row for row in table.rows if [cell.value for cell in row[: len(labels)]] == list(labels)
    ]
    return {(c.kind, c.title): cell for c, cell in zip(table.columns, row, strict=True)}


def studies(make_record):
    """What makes the record of a pre-training, and those of its transfers."""

    def make(hash_: str, backbone="vit_l", deviations=(), *, standard=True, **recipe):
        data = make_record().data.model_copy(update={"standard": standard})
        pretrain = make_record(
            kind="pretrain",
            protocol="pretrain/mae@1",
            task="pretrain",
            init="scratch",
            checkpoint=None,
            backbone=backbone,
            data=data,
            recipe={**PRETRAINED, **recipe},
            recipe_hash=hash_ * 6,
            deviations=list(deviations),
            metrics={"loss": 0.4},
        )
        file = Checkpoint(
            file="b.safetensors",
            sha256=hash_ * 32,
            recipe_hash=hash_ * 6,
            data=Named(name=data.name, fingerprint=data.fingerprint),
            seed=0,
        )
        shared = {"backbone": backbone, "checkpoint": file}
        return [
            pretrain,
            make_record(**shared, metrics={"top1": 85.0}),
            make_record(**shared, protocol=LINEAR, metrics={"top1": 73.2}),
        ]

    return make
