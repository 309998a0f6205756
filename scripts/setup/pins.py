"""The exact files that setup downloads, and the SHA-256 values that they must have.

A wheel carries a RECORD: the SHA-256 and the size of every file in it. Pinning the RECORD's own SHA-256 therefore pins
every file, and lets setup fetch and check single members of a wheel without having the rest of it.
The versions are those that the METADATA of torch 2.11.0 asks for (cuda-toolkit 13.0.2 and its parts).
The Python tag of the torch wheel does not matter: nothing of Python is unpacked.
"""

from dataclasses import dataclass
from typing import Dict, Tuple

LIBTORCH_VERSION = "2.11.0"
LIBTORCH_SERIES = "2.11"
CUDA_DRIVER_MIN = 13000  # as cuDriverGetVersion counts: 13.0

# What an installation takes at its peak: the download and, beside it, the unpacked files.
SPACE_NEEDED_BYTES = {"cpu": 700_000_000, "cuda": 6_500_000_000}


@dataclass(frozen=True)
class File:
    """A wheel's file for one kind of processor."""

    name: str
    size_bytes: int
    record_sha256: str


@dataclass(frozen=True)
class Wheel:
    """A wheel, and glob patterns of the members that are unpacked from it (`*` also matches `/`)."""

    project: str
    version: str
    members: Tuple[str, ...]
    files: Dict[str, File]  # by processor, as platform.machine() names it


LICENSES = "*.dist-info/*icens*"
TORCH_CPU = (
    LICENSES,
    "torch/include/*",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "torch/lib/libtorch.so",
    "torch/lib/libtorch_cpu.so",
    # BLAS and LAPACK, which only the aarch64 wheel has.
    "torch/lib/libarm_compute*.so",
    "torch/lib/libgfortran.so.5",
    "torch/lib/libnvpl_*.so.0",
)
TORCH_CUDA = (
    "torch/lib/libc10_cuda.so",
    "torch/lib/libcaffe2_nvrtc.so",
    "torch/lib/libtorch_cuda.so",
    "torch/lib/libtorch_cuda_linalg.so",
    "torch/lib/libtorch_nvshmem.so",
)


def wheels(variant):
    """The wheels of `variant`: "cpu" or "cuda"."""
    if variant == "cpu":
        return [torch(TORCH_CPU)] + LINKED_BY_LIBTORCH_CPU
    return [torch(TORCH_CPU + TORCH_CUDA)] + LINKED_BY_LIBTORCH_CPU + LINKED_BY_LIBTORCH_CUDA


def torch(members):
    files = {
        "x86_64": File(
            "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            530_712_279,
            "64d76220aff1572ba2ee949e3c4e5633a21f7aa626c634ee1730609464777fc5",
        ),
        "aarch64": File(
            "torch-2.11.0-cp312-cp312-manylinux_2_28_aarch64.whl",
            419_731_115,
            "663b5a78dd5e8d72032e95225ad4e0caac07fbfda69cd4c12b3f8823f6e91a27",
        ),
    }
    return Wheel("torch", LIBTORCH_VERSION, members, files)


def nvidia(project, version, libraries, files):
    members = (LICENSES,) + tuple(f"nvidia/{library}" for library in libraries)
    return Wheel(f"nvidia-{project}", version, members, files)


# libtorch_cpu.so is linked against these two, GPU or not.
LINKED_BY_LIBTORCH_CPU = [
    nvidia(
        "cuda-runtime",
        "13.0.96",
        ["cu13/lib/libcudart.so.13"],
        {
            "x86_64": File(
                "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                2_243_632,
                "34c7a65651597fd8a376b049b69bb26db399a9ea443a7a142ccd34f5a10f79c4",
            ),
            "aarch64": File(
                "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                2_261_060,
                "8ff0b015e7bb39dbf9cfc2a997cdb581914c6661dbbdbc1a71c7cc3da6a4dc11",
            ),
        },
    ),
    nvidia(
        "cuda-cupti",
        "13.0.85",
        ["cu13/lib/libcupti.so.13"],
        {
            "x86_64": File(
                "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
                10_715_597,
                "f8ae8ddce85f8e319abac90e956bf45a572e31f4ff01af2d634f37aa3d78e3eb",
            ),
            "aarch64": File(
                "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_aarch64.whl",
                10_310_827,
                "d26eaae605b8bd5e97a7355a3938d2213f2062f0f23d2afd1c00c9d8647cf4a6",
            ),
        },
    ),
]

LINKED_BY_LIBTORCH_CUDA = [
    nvidia(
        "cublas",
        "13.1.0.3",
        ["cu13/lib/libcublas.so.13", "cu13/lib/libcublasLt.so.13"],
        {
            "x86_64": File(
                "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
                423_133_236,
                "35a31bf9f5d4fa709c63a127c3b0651f3ccfec462c422cf8bf5d9e964301de59",
            ),
            "aarch64": File(
                "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_aarch64.whl",
                542_851_226,
                "e1abf66f4dfb5166be892ebe84b136faaca00e8a5d93f5b0d4919d26a03fb7d0",
            ),
        },
    ),
    nvidia(
        "cufft",
        "12.0.0.61",
        ["cu13/lib/libcufft.so.12"],
        {
            "x86_64": File(
                "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                214_085_489,
                "50d86a39c8b16aaedabf82f2e54418ecd00435467f47bdcc12f08b3f00c5dcb4",
            ),
            "aarch64": File(
                "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                214_053_554,
                "35eeca2290c33359635c302977d8dcb58b6e192fd41b44d09715f0db117b4671",
            ),
        },
    ),
    nvidia(
        "cufile",
        "1.15.1.6",
        ["cu13/lib/libcufile.so.0"],
        {
            "x86_64": File(
                "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                1_223_672,
                "71e64aad4a5cac9a56b737d732caa43c0ebc36e4e5ac4f63b523f45ab50285d6",
            ),
            "aarch64": File(
                "nvidia_cufile-1.15.1.6-py3-none-manylinux_2_27_aarch64.whl",
                1_136_992,
                "20eb34de63ea4fb75c3b51a488388a2858883f52b783832cb667cce2de6c8e97",
            ),
        },
    ),
    nvidia(
        "curand",
        "10.4.0.35",
        ["cu13/lib/libcurand.so.10"],
        {
            "x86_64": File(
                "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
                59_544_258,
                "a4340ab778f30ac2b39e95dd8447a6d79925287d312442c102dac6e2105dc025",
            ),
            "aarch64": File(
                "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_aarch64.whl",
                61_962_106,
                "85738bc18c1f978869dfaa2acc15156740cc7a13e1113bf3070b56493aac0e96",
            ),
        },
    ),
    nvidia(
        "cusolver",
        "12.0.4.66",
        ["cu13/lib/libcusolver.so.12"],
        {
            "x86_64": File(
                "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
                200_941_980,
                "2b13143036698247ffae6687e0645d1b903cef6d6851c04bc3f45536f918cb92",
            ),
            "aarch64": File(
                "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_aarch64.whl",
                223_467_760,
                "f6a619890373d293ce81de6c5cc9b7b85eb1f24fb5493b77de5a6bd52ede54b0",
            ),
        },
    ),
    nvidia(
        "cusparse",
        "12.6.3.3",
        ["cu13/lib/libcusparse.so.12"],
        {
            "x86_64": File(
                "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                145_942_937,
                "1bc905cfcd5b254d22a6866884cd7280da178e2bf7971dcfef65dd6c11c72dfd",
            ),
            "aarch64": File(
                "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                162_155_568,
                "e7812919b545312816c802d760e3c1ccf88a34b19ca8cfcaadd01b98244ae6d4",
            ),
        },
    ),
    nvidia(
        "nvjitlink",
        "13.0.88",
        ["cu13/lib/libnvJitLink.so.13"],
        {
            "x86_64": File(
                "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                40_713_933,
                "8deabe93d94e96f22180365bcd7c5a39c30c41e97d3cd7f9bb375cd1460eddfa",
            ),
            "aarch64": File(
                "nvidia_nvjitlink-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                38_768_748,
                "884dae1d5dcb019e5897bbf23d216188bbcca383cfb82a3943cfb01ae2ef759e",
            ),
        },
    ),
    nvidia(
        "cuda-nvrtc",
        "13.0.88",
        ["cu13/lib/libnvrtc.so.13", "cu13/lib/libnvrtc-builtins.so.13.0"],
        {
            "x86_64": File(
                "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                90_215_200,
                "c836d98d0eebc101713a79a8d2802f22dfe8b3f9118403d987470bc0b59c9e0b",
            ),
            "aarch64": File(
                "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                43_015_449,
                "46eed66d6c4e20b8ff1233c2480c143de46ac63d7ce352e669ef4486392fff33",
            ),
        },
    ),
    nvidia(
        "cudnn-cu13",
        "9.19.0.56",
        ["cudnn/lib/libcudnn*.so.9"],
        {
            "x86_64": File(
                "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl",
                366_066_321,
                "f3d7140798fccda99fb75841ff41c5dd88de4bc6bd5bffb49200c9b7bf791ca8",
            ),
            "aarch64": File(
                "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_aarch64.whl",
                433_781_201,
                "cb9e895d22ea624ae709a975d0e5404a828b8c455d045b534f1f26af0feec5fc",
            ),
        },
    ),
    nvidia(
        "cusparselt-cu13",
        "0.8.0",
        ["cusparselt/lib/libcusparseLt.so.0"],
        {
            "x86_64": File(
                "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl",
                169_884_119,
                "43278a3f845551894a9cf1381e29b7c5b845aa1eae0b14bb4f8338c470c042ff",
            ),
            "aarch64": File(
                "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_aarch64.whl",
                220_791_277,
                "51e9f92a4de691877670beecf804ae0bcbc0f1ae39bdb1bbe894b46ba7c3f29e",
            ),
        },
    ),
    nvidia(
        "nccl-cu13",
        "2.28.9",
        ["nccl/lib/libnccl.so.2"],
        {
            "x86_64": File(
                "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
                196_493_177,
                "354815308954b2fd5ffcfe2fc264ed611ee91912cadbab28632d10424988f4bb",
            ),
            "aarch64": File(
                "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_aarch64.whl",
                196_561_677,
                "36e72cbd7fc83f194f2cac930577e87c3a8993e736672ea7d9a450dcb7d9ac65",
            ),
        },
    ),
    nvidia(
        "nvshmem-cu13",
        "3.4.5",
        ["nvshmem/lib/libnvshmem_host.so.3"],
        {
            "x86_64": File(
                "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                60_412_546,
                "b6aa8392b88088391e5b1ce756ca95d02035d25c26ea070f65794b24cb095fd7",
            ),
            "aarch64": File(
                "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                60_215_947,
                "6e2c71f59d559eee8289c4761f6186666f6fa333de26b74e903220ccac8136f0",
            ),
        },
    ),
]
