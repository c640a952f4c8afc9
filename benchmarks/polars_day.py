"""The baseline of the daily analysis: the same figures by Polars, in one process.

    python -m benchmarks.polars_day FOLDER VERSION RESULTS

Reads the Parquet files of a day into memory, and writes what `batch_analysis_results` has of each
device: statistics of every feature, anomalies by the z-score rule and by a global model with its
own standardizer. No drift, which needs days before.
"""

import sys
from pathlib import Path

import polars as pl

from benchmarks.versions import model_of
from flead.analysis.statistics import PERCENTS
from flead.contracts.messages import GlobalModel
from flead.contracts.schema import MIN_ROLLING_ROWS, ROLLING_ROWS, Z_CLIP, Z_THRESHOLD
from flead.features.spread import ROUNDING
from flead.learning.metrics import THRESHOLD

DEVICE = "device_id"


def analyse(folder: Path, model: GlobalModel) -> pl.DataFrame:
    """Return a row of each device; of a feature `f` the statistics are in `f_count` and so on."""
    rows = (
        pl.read_parquet(folder / "*.parquet", columns=[
            DEVICE, "kafka_partition", "kafka_offset", "label", "features",
        ])
        .sort(DEVICE, "kafka_partition", "kafka_offset")
        .with_columns(pl.col("features").map.get(name).alias(name) for name in model.feature_names)
        .drop("features", "kafka_partition", "kafka_offset")
        .lazy()
    )  # fmt: skip
    inputs = [each for name in model.feature_names for each in _inputs(name)]
    z_scores = [f"{name}_z_score" for name in model.feature_names]
    return (
        rows.with_columns(inputs)
        .with_columns(_z_score(name) for name in model.feature_names)
        .with_columns(
            is_far=pl.any_horizontal(pl.col(name).abs() > Z_THRESHOLD for name in z_scores),
            is_anomalous=_probability(model) >= THRESHOLD,
        )
        .group_by(DEVICE)
        .agg(
            pl.len().alias("row_count"),
            pl.col("label").count().alias("rows_labelled"),
            pl.col("is_anomalous").sum().alias("anomaly_count"),
            pl.col("is_far").sum().alias("zscore_anomaly_count"),
            *(each for name in model.feature_names for each in _statistics(name)),
        )
        .sort(DEVICE)
        .collect()
    )


def _inputs(name: str) -> list[pl.Expr]:
    """Count, mean and deviation of the rows before each row."""
    before = pl.col(name).shift(1)
    options = {"window_size": ROLLING_ROWS, "min_samples": 1}
    rolled = {
        "rows": before.is_not_null().cast(pl.Float64).rolling_sum(**options),
        "mean": before.rolling_mean(**options),
        "std": before.rolling_std(**options, ddof=0),
    }
    return [each.over(DEVICE).alias(f"{name}_{kind}") for kind, each in rolled.items()]


def _z_score(name: str) -> pl.Expr:
    mean, deviation = pl.col(f"{name}_mean"), pl.col(f"{name}_std")
    known = (pl.col(f"{name}_rows") >= MIN_ROLLING_ROWS) & (deviation > ROUNDING * mean.abs())
    z_score = ((pl.col(name) - mean) / deviation).clip(-Z_CLIP, Z_CLIP)
    missing = pl.col(name).is_null()
    return pl.when(missing).then(None).when(known).then(z_score).otherwise(0.0).alias(
        f"{name}_z_score"
    )  # fmt: skip


def _probability(model: GlobalModel) -> pl.Expr:
    """Probability of an anomaly by the model, as for a device without moments of its own."""
    fleet = model.standardizer
    kinds = ("", "_z_score", "_mean", "_std")
    names = [f"{name}{kind}" for name in model.feature_names for kind in kinds]
    scaled = [
        ((pl.col(name) - mean) / (m2 / count) ** 0.5).clip(-Z_CLIP, Z_CLIP).fill_null(0.0) * weight
        for name, count, mean, m2, weight in zip(
            names, fleet.count, fleet.mean, fleet.m2, model.weights, strict=True
        )
    ]
    return 1.0 / (1.0 + (-(pl.sum_horizontal(scaled) + model.intercept)).exp())


def _statistics(name: str) -> list[pl.Expr]:
    value = pl.col(name)
    found = {
        "count": value.count(),
        "missing_share": value.null_count() / pl.len(),
        "mean": value.mean(),
        "std": value.std(ddof=0),
        "quantiles": pl.concat_list(
            value.quantile(percent / 100, "linear") for percent in PERCENTS
        ),
    }
    return [each.alias(f"{name}_{figure}") for figure, each in found.items()]


def main() -> None:
    """Analyse and write."""
    folder, version, results = sys.argv[1:]
    analyse(Path(folder), model_of(int(version))).write_parquet(results)


if __name__ == "__main__":
    main()
