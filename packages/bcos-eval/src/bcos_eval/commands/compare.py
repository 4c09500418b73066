"""``bcos-eval compare``: ask a finished study something else."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser

from .crossval import read_contrasts


def compare(argv: Sequence[str]) -> None:
    parser = CommandParser(
        prog="bcos-eval compare",
        description="Test a study's scores again: another metric, region of practical equivalence, level or contrasts "
        "than planned. What is asked after the scores were seen is exploration; the planned answer is report's.",
    )
    parser.add_argument("study", type=str, help="name of the study, or a folder with its scores")
    parser.add_argument("--metric", type=str, default=None, help="what arms are compared by")
    parser.add_argument("--rope", type=float, default=None, help="differences up to this size count as none")
    parser.add_argument("--alpha", type=float, default=None, help="level of the tests; by default as planned")
    parser.add_argument("--control", type=str, default=None, help="the arm to compare with")
    parser.add_argument(
        "--contrast", action="append", metavar="ARM,CONTROL", default=None, type=str, help="a contrast, several times"
    )
    options = parser.parse_args(list(argv))
    if options.alpha is not None and not 0 < options.alpha < 1:
        parser.error(f"--alpha: expected a level between 0 and 1, got {options.alpha}")
    if options.control is not None and options.contrast:
        parser.error("--control, --contrast: give one of them")
    import pathlib

    from bcos_core.run.config import load_dict
    from bcos_core.run.error import InputError

    from bcos_eval.scores import ScoreTable
    from bcos_eval.stats import compare_arms, to_lines
    from bcos_eval.studies.adapter import load_adapter
    from bcos_eval.study import PLAN, Study, plan_from_dict, study_folder

    folder = study_folder(options.study)
    if not folder.is_dir():
        folder = pathlib.Path(options.study)
    if not (folder / PLAN).is_file():
        raise InputError(f'no study "{options.study}": no {study_folder(options.study) / PLAN}')
    study = plan_from_dict(load_dict(folder / PLAN))
    if not isinstance(study, Study):
        raise InputError(f"{options.study} is a search, not a study")
    table = ScoreTable.read(folder).shared()
    metric = options.metric or study.metric
    contrasts = read_contrasts(options.contrast or ())
    planned = tuple(pair for pair in study.planned if set(pair) <= set(table.arms))
    comparison = compare_arms(
        table,
        metric,
        contrasts=contrasts or (None if options.control else planned),
        control=options.control,
        # the planned region is in the planned metric's unit
        rope=(study.rope if metric == study.metric else 0.0) if options.rope is None else options.rope,
        alpha=study.alpha if options.alpha is None else options.alpha,
    )
    print(to_lines(comparison, says=load_adapter(study.package).says.get(metric, "")))
