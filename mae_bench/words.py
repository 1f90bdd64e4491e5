"""What reports call tasks, protocols and metrics: handed from the faces of tasks to results."""

import tasks
from mae_bench.errors import RunError
from mae_bench.pretraining import words as pretraining
from results.labels import Metric, Words, use


def hand_in() -> None:
    """Give the words of all tasks that there are now to reports."""
    metrics: dict[str, Metric] = {}
    titles: dict[str, str] = {}
    protocols: dict[str, dict[str, str]] = {}
    pictures = {pretraining.TASK: pretraining.PICTURES}
    for face in tasks.faces():
        for name, said in face.metrics.items():
            metric = Metric(said.title, said.unit, said.better)
            if metrics.setdefault(name, metric) != metric:
                raise RunError(f"metric {name}: two tasks say different things of it; rename one")
        titles |= face.titles
        protocols |= {task: dict(face.protocol_titles) for task in face.titles}
        pictures |= dict.fromkeys(face.tasks, face.pictures)
    own_tasks = [task for face in tasks.faces() for task in face.tasks]
    rows = [row for face in tasks.faces() for row in face.datasets()]
    own_data = frozenset(row.name for row in rows if not row.classes)
    classes = {row.name: row.classes for row in rows if row.classes}

    def place(task: str) -> tuple[bool, bool]:
        """Tasks first, then data sets that only test, then the user's own data."""
        return task in own_data, task not in own_tasks

    ordered = {task: titles[task] for task in sorted(titles, key=place)}
    ordered[pretraining.TASK] = ""
    protocols[pretraining.TASK] = pretraining.PROTOCOLS
    use(Words(metrics, pretraining.ERRORS, ordered, protocols, classes, own_data, pictures))


hand_in()
