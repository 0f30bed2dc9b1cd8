"""A bound on a program's time from what it computes, moves and sends (Williams et al. 2009)."""

import dataclasses

from diffsep_jax.hardware import Chip

ASSUMPTIONS = (
    "compute: the FLOPs that the program executes, recomputation and attention kernels included, at"
    " the chip's dense bfloat16 peak (which TPUs reach for float32 inputs too, as JAX rounds them);"
    " elementwise work costs nothing",
    "memory: the bytes that the compiled operations read and write by the compiler's count, at the"
    " full bandwidth; what an operation finds in on-chip memory counts too, so this is high; of a"
    " Pallas kernel, each operand counts once",
    "interconnect: ring algorithms with all links of a chip busy, all chips in one slice",
    "the terms overlap fully (shortest) or not at all (longest); launch and host time cost nothing",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """Seconds of one call of the program on one chip, by what limits it.

    Attributes:
        compute: executed FLOPs over the peak.
        memory: bytes accessed over the memory's bandwidth.
        interconnect: bytes sent over the links' bandwidth.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def shortest(self) -> float:
        """Everything overlaps: the largest term."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def longest(self) -> float:
        """Nothing overlaps: the sum of the terms."""
        return self.compute + self.memory + self.interconnect

    @property
    def limit(self) -> str:
        """The name of the largest term."""
        terms = dataclasses.asdict(self)
        return max(terms, key=lambda name: terms[name])


def roofline(chip: Chip, *, flops: float, bytes_accessed: float, bytes_sent: float) -> Roofline:
    """The terms, from one device's share of a call."""
    return Roofline(
        compute=flops / chip.flops,
        memory=bytes_accessed / chip.memory_bandwidth,
        interconnect=bytes_sent / chip.interconnect_bandwidth,
    )
