"""Writes the learning curves of one or several searches, as a page that opens offline or as CSV.

    python examples/learning_curves.py runs/attention --out curves.html
    python examples/learning_curves.py runs/attention --metric train.loss --out curves.csv

On the page the best trials are in colour, and the others are grey. Hovering over a curve shows the
name and the settings of its trial.
"""

import argparse
import sys
from pathlib import Path

import plotly.graph_objects as go
from pandas.api.types import is_numeric_dtype

from s2s_search import results
from s2s_search.hparams import ConfigError

GREY = "rgba(128, 128, 128, 0.35)"


def figure(run: results.Results, metric: str, coloured: int = 5) -> go.Figure:
    """Returns a figure with a line for each trial that has reported; the best are in colour."""
    curves, ranked = run.curves(metric), run.best(None).set_index(["run", "trial"])
    places = {trial: place for place, trial in enumerate(ranked.index)}
    drawn = go.Figure()
    for trial in sorted(places, key=lambda trial: -places[trial]):
        curve = curves[trial].dropna()
        settings = ranked.loc[trial, list(run.searched)].dropna()
        text = "<br>".join(
            [" ".join(trial), *(f"{key} {value}" for key, value in settings.items())]
        )
        line = {"color": GREY, "width": 1} if places[trial] >= coloured else {"width": 2.5}
        hover = text + "<br>step %{x}: %{y:.4g}<extra></extra>"
        drawn.add_scatter(
            x=curve.index.tolist(),
            y=curve.tolist(),
            name=" ".join(trial),
            mode="lines+markers",
            line=line,
            hovertemplate=hover,
            showlegend=places[trial] < coloured,
        )
    return drawn.update_layout(title=run.name, xaxis_title="step", yaxis_title=metric)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR")
    parser.add_argument(
        "--metric", help="a column of the reports (default: the metric that the searches optimize)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".html or .csv")
    args = parser.parse_args()
    try:
        run = results.load_many(args.folders)
        metric = args.metric or run.metric
        if metric in run.reports and not is_numeric_dtype(run.reports[metric]):
            sys.exit(f"--metric {metric}: is no number; {run.metric} is what the search optimizes")
        if args.out.suffix == ".csv":
            curves = run.curves(metric)
            curves.set_axis([" ".join(trial) for trial in curves], axis=1).to_csv(args.out)
        elif args.out.suffix == ".html":
            figure(run, metric).write_html(args.out)
        else:
            sys.exit(f"--out {args.out}: must end in .html or .csv")
    except ConfigError as error:
        sys.exit(str(error))
    print(f"{args.out}: {metric} of {len(run.trials)} trials")


if __name__ == "__main__":
    main()
