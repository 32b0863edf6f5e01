"""Build and dependencies of topognn; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = (HERE / "topognn" / "version.py").read_text().split('"')[-2]

# NVVM and ptxas come from their own wheels: numba-cuda's extras pin another CUDA toolkit than torch's wheels do.
COMPILER = {12: "nvidia-cuda-nvcc-cu12==12.*", 13: "nvidia-cuda-nvcc==13.*"}
NUMBA_CUDA = ["numba-cuda>=0.20", "numpy<2.5"]  # numba-cuda 0.30 asks NumPy for what 2.5 no longer has


def cuda(major):
    """Return what GPUs of a CUDA generation need."""
    return [*NUMBA_CUDA, COMPILER[major], f"cupy-cuda{major}x>=13", f"cugraph-cu{major}>=25.4"]


CHECK = [*NUMBA_CUDA, COMPILER[13]]  # compiles kernels for GPUs that are not there
ORACLES = ["statsmodels>=0.14", "scikit-learn>=1.4"]  # of the study's statistics
PEERS = ["networkx>=3", "igraph>=0.11"]
STUDY = [
    "pandas>=2",
    "pyarrow>=15",
    "matplotlib>=3.8",
    "dask[distributed]",
    "tomli>=2; python_version < '3.11'",
]
TEST = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "selenium>=4.15", *STUDY, *ORACLES, *PEERS, *CHECK]

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
        "numba>=0.62",  # LLVM without types of pointers, as kernels/gathers.py writes it
        "filelock>=3.12",
        "rich>=13",
        "typer>=0.12",
        "safetensors>=0.4",
    ],
    extras_require={
        "cuda12": cuda(12),
        "cuda13": cuda(13),
        "study": STUDY,
        "lightning": ["lightning>=2.2"],
        "hugging-face": ["transformers[torch]>=4.40"],
        "logging": ["tensorboard>=2.14", "wandb>=0.16"],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.9", "mypy>=1.13"],
    },
    entry_points={"console_scripts": ["topognn = topognn.cli.main:main"]},
)
