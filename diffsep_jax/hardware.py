"""What chips can do at best, by JAX's name of them: for utilisation and for roofline estimates.

Sources: the pages "TPU v4", "v5e", "v5p" and "v6e" of Google's Cloud TPU documentation (for v4's
links: Jouppi et al. 2023), and NVIDIA's data sheets of the A100, H100, H200 and L4. Products are
dense, without sparsity. Memory is in powers of ten even where the vendor may mean powers of two:
what fits here fits there.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """The vendor's figures for one chip.

    Attributes:
        name: the vendor's name.
        flops: bfloat16 operations a second with float32 sums, a multiply-add counted as two.
        memory: bytes.
        memory_bandwidth: bytes a second.
        interconnect_bandwidth: bytes a second to other chips, over all links together, in one
            direction. The links are inter-chip interconnect on TPUs, NVLink or else PCIe on GPUs.
    """

    name: str
    flops: float
    memory: float
    memory_bandwidth: float
    interconnect_bandwidth: float


def _chip(
    name: str, teraflops: int, memory_gb: int, memory_gb_s: int, interconnect_gb_s: int
) -> Chip:
    return Chip(
        name=name,
        flops=teraflops * 1e12,
        memory=memory_gb * 1e9,
        memory_bandwidth=memory_gb_s * 1e9,
        interconnect_bandwidth=interconnect_gb_s * 1e9,
    )


_V5E = _chip("TPU v5e", 197, 16, 819, 200)
_V6E = _chip("TPU v6e", 918, 32, 1600, 400)

CHIPS = {
    "TPU v4": _chip("TPU v4", 275, 32, 1200, 300),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _chip("TPU v5p", 459, 95, 2765, 600),
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "NVIDIA A100-SXM4-40GB": _chip("A100 40 GB", 312, 40, 1555, 300),
    "NVIDIA A100-SXM4-80GB": _chip("A100 80 GB", 312, 80, 2039, 300),
    "NVIDIA H100 80GB HBM3": _chip("H100 SXM", 989, 80, 3350, 450),
    "NVIDIA H200": _chip("H200 SXM", 989, 141, 4800, 450),
    "NVIDIA L4": _chip("L4", 121, 24, 300, 32),
}


def chip(device_kind: str) -> Chip | None:
    """The chip that `jax.Device.device_kind` names; None if it isn't in the table, as CPUs."""
    return CHIPS.get(device_kind)
