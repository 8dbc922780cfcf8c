"""Packaging. The folders at the top level import as `trtdet.<folder>`; the wheel owns one name."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = (HERE / "trtdet/__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

ROOMS = {
    "trtdet": "trtdet",
    "trtdet.commands": "trtdet/commands",
    "trtdet.engine": "engine",
    "trtdet.build": "build",
    "trtdet.build.detectors": "build/detectors",
    "trtdet.calibration": "calibration",
    "trtdet.benchmarks": "benchmarks",
    "trtdet.benchmarks.peers": "benchmarks/peers",
}

OPENVINO = "openvino>=2025.0"

setup(
    name="trtdet",
    version=VERSION,
    description="Synthetic-image detectors as engines: the paper's scores at the hardware's speed",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir=ROOMS,
    packages=list(ROOMS),
    package_data={
        "trtdet": ["py.typed", "starter/*"],
        "trtdet.engine": ["*.cu"],
        "trtdet.benchmarks": ["*.css"],
    },
    entry_points={"console_scripts": ["trtdet = trtdet.cli:main"]},
    install_requires=[
        "numpy>=1.26",
        "opencv-python-headless>=5.0",
        "Pillow>=10.0",
        "click>=8.1",
        "rich>=13.0",
        # A Jetson scores with TensorRT: there OpenVINO is asked for by name, `trtdet[cpu]`.
        f'{OPENVINO}; platform_machine != "aarch64"',
    ],
    extras_require={
        "cpu": [OPENVINO],
        "build": [
            "torch>=2.9",
            "onnx>=1.18",
            "onnxscript>=0.5",
            "onnxsim>=0.6",
            "safetensors>=0.4",
            'tomli>=2; python_version < "3.11"',
        ],
        "tensorrt": ["tensorrt>=10.3"],
        "tensorrt-rtx": ["tensorrt-rtx>=1.4"],
        "cuda": ["pycuda>=2024.1", "cuda-bindings>=12.6", "nvidia-ml-py>=12"],
        "parquet": ["pyarrow>=17"],
        "peers": ["onnxruntime>=1.20"],
        # From 2.55 on Ray marks a row as done only with the file that it is in.
        "ray": ["ray[data]>=2.55"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3",
            "hypothesis>=6",
            "mypy>=1.11",
            "ruff>=0.6",
            "scikit-learn>=1.4",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
