"""Units as files name them, and the wavelength of a photon energy."""

from __future__ import annotations

from scipy import constants

from ptychow.errors import InputError
from ptychow.optics.propagation import photon_wavelength
from ptychow.scan import PositionUnit

PLANCK_TIMES_LIGHT = constants.h * constants.c  # J m
ELECTRONVOLT = constants.e  # J

LENGTH_UNITS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
KNOWN_UNITS = "m, mm, um, nm, or px for object pixels"
OBJECT_PIXELS = ("px", "pixel", "pixels")
LENGTHS = {
    "m": ("m", "meter", "metre", "meters", "metres"),
    "mm": ("mm", "millimeter", "millimetre"),
    "um": ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"),  # micro sign and Greek letter
    "nm": ("nm", "nanometer", "nanometre"),
}
ANGSTROM = ("angstrom", "angstroms", "a", "å")
ENERGIES = {"j": 1.0, "ev": ELECTRONVOLT, "kev": 1e3 * ELECTRONVOLT}


def metres(unit: str, *, field: str) -> float:
    """How many metres a unit of length is. Raises InputError, naming `field`, for one not known."""
    word = unit.strip().lower()
    if word in ANGSTROM:
        return 1e-10
    for name, spellings in LENGTHS.items():
        if word in spellings:
            return LENGTH_UNITS[name]
    raise InputError("unknown unit", field=field, found=unit or "nothing", expected="m, mm, um, nm or angstrom")


def position_scale(unit: str, *, field: str) -> tuple[float, PositionUnit]:
    """What positions in `unit` are multiplied by for metres or object pixels, and which of the two it then is.

    Raises InputError, naming `field`, for a unit not known.
    """
    if unit.strip().lower() in OBJECT_PIXELS:
        return 1.0, "px"
    try:
        return metres(unit, field=field), "m"
    except InputError:
        raise InputError("unknown unit", field=field, found=unit or "nothing", expected=KNOWN_UNITS) from None


def agreed_scale(told: str | None, written: str, *, field: str) -> tuple[float, PositionUnit] | None:
    """`position_scale` of the unit that a person tells, else of the one in the file's `field`; None without both.

    Raises InputError for units not known, and where the two contradict each other.
    """
    if not told:
        return position_scale(written, field=field) if written else None
    scale = position_scale(told, field="position_unit")
    if written and scale != position_scale(written, field=field):
        raise InputError(
            "contradicts the file",
            field="position_unit",
            found=told,
            expected=f"{written} ({field})",
            remedy="Leave position_unit out; where the file is wrong, give the positions as a table (--positions FILE)",
        )
    return scale


def joules(unit: str, *, field: str) -> float:
    """How many joules a unit of energy is. Raises InputError, naming `field`, for one not known."""
    found = ENERGIES.get(unit.strip().lower())
    if found is None:
        raise InputError("unknown unit", field=field, found=unit or "nothing", expected="J, eV or keV")
    return found


def wavelength_of(energy: float | None) -> float | None:
    """Wavelength (m) of a photon energy (J); None where that is unknown: absent, or 0 as some writers say it."""
    return photon_wavelength(energy / ELECTRONVOLT) if energy else None
