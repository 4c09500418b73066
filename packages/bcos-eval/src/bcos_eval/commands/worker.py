"""``bcos-eval worker``: join a study's workers."""

import os
from collections.abc import Sequence

from bcos_core.run.command import CommandParser


def worker(argv: Sequence[str]) -> None:
    parser = CommandParser(
        prog="bcos-eval worker",
        description="Take units from a study's queue until none is left. Start as many as wanted, on this machine or "
        "on each node of a SLURM array: all have to reach the queue and the MLflow server (MLFLOW_TRACKING_URI).",
    )
    parser.add_argument("study", type=str, help="name of the study")
    parser.add_argument(
        "--queue",
        metavar="PLACE",
        type=str,
        default=None,
        help="its queue: a journal file, or postgresql://...; by default $BCOS_EVAL_QUEUE, or as the study was made",
    )
    options = parser.parse_args(list(argv))
    from bcos_core.run.server import tracking_server

    from bcos_eval.queue import QUEUE_VARIABLE, UnitQueue, default_location
    from bcos_eval.study import study_folder
    from bcos_eval.worker import Stopped, Worker, make_folder

    folder = study_folder(options.study)
    queue = UnitQueue.open(options.study, options.queue or os.environ.get(QUEUE_VARIABLE) or default_location(folder))
    make_folder(queue.plan)
    fresh = Worker(queue)
    with tracking_server() as uri:
        proxies = {name: os.environ[name] for name in ("NO_PROXY", "no_proxy") if name in os.environ}
        environment = {"MLFLOW_TRACKING_URI": uri, **proxies}
        try:
            done = fresh.work(environment, lambda unit: print(f"done: {unit.id}", flush=True))
        except Stopped:
            print("asked to end: the unit at work was given back", flush=True)
            return
    print(f"{done} units done here; nothing is left to do in {options.study}")
