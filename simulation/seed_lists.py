"""Seeds as a person types them for a benchmark."""

from fedmedclip.protocol.errors import InvalidInputError

_LARGEST = (1 << 63) - 1


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of "0,1,2", each once. Raises InvalidInputError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        # Of digits alone, and few enough: Python would also take 1_000, signs, and digits of other scripts.
        digits = part.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) <= _LARGEST):
            raise InvalidInputError(
                f"--seeds {text[:80]!r}: {part[:40]!r} is no seed; give whole numbers from 0 with commas "
                "between them, such as 0,1,2"
            )
        seeds.append(int(digits))
    return list(dict.fromkeys(seeds))
