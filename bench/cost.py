"""Print what 1,000 images of a bulk run cost at list prices, by kind of child and size of a batch, as Markdown.

    python -m bench.cost [--region eu-west-1] [--seconds 3] [--memory 3008] [--gpu-seconds 0.15]

A transform job pays for its instances only, but also for the start of each.

The defaults are assumptions for photographs of 2 MP at ``high``, not measurements on AWS.
"""

import argparse
from collections.abc import Iterator
from typing import Final

from bench.markdown import table
from functions.contracts.prices import AS_OF, Prices, Usage, express_usage, mask_usage, prices_of, standard_usage

IMAGES: Final = 1000
_BATCHES: Final = (1, 10, 100)
_USE_OF_GPU: Final = 0.8
_START_S: Final = 300.0
"""Start of an instance of a transform job: container image, weights. Assumed."""
_JOBS: Final = (1000, 100_000)


def rows(prices: Prices, seconds: float, memory_mb: int, gpu_seconds: float) -> Iterator[list[str]]:
    """Yield the rows of the table: kind of child, and US dollars per 1,000 images.

    Args:
        prices: of the Region.
        seconds: processing time of an image in functions.
        memory_mb: memory of the functions.
        gpu_seconds: time of an image on a GPU endpoint that is used at 80 %; it replaces a third of ``seconds``.
    """
    gpu = IMAGES * gpu_seconds / _USE_OF_GPU / 3600 * prices.gpu_endpoint_h
    for batch in _BATCHES:
        usage = express_usage(IMAGES, 0, batch, IMAGES * seconds, memory_mb)
        yield _row(f"express, batches of {batch}, Lambda", usage, prices, 0.0)
    usage = express_usage(IMAGES, 0, 10, IMAGES * seconds * 2 / 3, memory_mb)
    yield _row("express, batches of 10, GPU endpoint at 80 %", usage, prices, gpu)
    for images in _JOBS:
        job = (images * gpu_seconds + _START_S) / 3600 * prices.gpu_endpoint_h * IMAGES / images
        name = f"express, batches of 10, Batch Transform of {images:,} images on a GPU"
        yield _row(name, usage + mask_usage(IMAGES, IMAGES), prices, job)
    yield _row("express, batches of 10, all done before", express_usage(IMAGES, IMAGES, 10, 0, memory_mb), prices, 0)
    yield _row("standard, Lambda", standard_usage(IMAGES, IMAGES * seconds * 1.2, memory_mb), prices, 0)


def _row(name: str, usage: Usage, prices: Prices, endpoint_usd: float) -> list[str]:
    parts = [usage.orchestration_usd(prices), usage.compute_usd(prices), usage.requests_usd(prices), endpoint_usd]
    return [name, *(f"{part:.4f}" for part in parts), f"{sum(parts):.3f}"]


def report(region: str, seconds: float, memory_mb: int, gpu_seconds: float) -> str:
    """Return the table, with a line that says what it assumes."""
    known, prices = prices_of(region)
    heads = ["Children", "Step Functions", "Lambda", "S3 and DynamoDB", "SageMaker", "Total"]
    title = (
        f"US dollars per 1,000 images in {known}, list prices of {AS_OF}, {seconds:g} s per image at {memory_mb:,} MB"
    )
    return table(title, heads, list(rows(prices, seconds, memory_mb, gpu_seconds)))


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--region", default="eu-west-1", help="AWS Region.")
    parser.add_argument("--seconds", type=float, default=3.0, help="Processing time of an image in functions.")
    parser.add_argument("--memory", type=int, default=3008, help="Memory of the functions in MB.")
    parser.add_argument("--gpu-seconds", type=float, default=0.15, help="Time of an image on the GPU endpoint.")
    given = parser.parse_args()
    print(report(given.region, given.seconds, given.memory, given.gpu_seconds))


if __name__ == "__main__":
    main()
