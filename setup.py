"""Build and dependencies of topognn; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = (HERE / "topognn" / "version.py").read_text().split('"')[-2]

CUDA = ["numba-cuda[cu{0}]>=0.20", "cupy-cuda{0}x>=13", "cugraph-cu{0}>=25.4"]
CHECK = ["numba-cuda[cu13]>=0.20"]  # compiles kernels for GPUs that are not there
PEERS = ["networkx>=3", "igraph>=0.11"]
TEST = ["pytest>=8", "hypothesis>=6.100", "pandas>=2", *PEERS, *CHECK]

setup(
    name="topognn",
    version=VERSION,
    description="GPU-native sparse graph analytics for sparse neural networks",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["topognn", "topognn.*"]), "topognn.kernels"],
    package_dir={"topognn.kernels": "kernels"},
    package_data={"topognn": ["py.typed"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "scipy>=1.11",
        "numba>=0.60",
        "rich>=13",
        "typer>=0.12",
        "safetensors>=0.4",
    ],
    extras_require={
        "cuda12": [line.format(12) for line in CUDA],
        "cuda13": [line.format(13) for line in CUDA],
        "study": [
            "pandas>=2",
            "pyarrow>=15",
            "statsmodels>=0.14",
            "scikit-learn>=1.4",
            "matplotlib>=3.8",
            "dask[distributed]",
        ],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.9", "mypy>=1.13"],
    },
    entry_points={"console_scripts": ["topognn = topognn.cli.main:main"]},
)
