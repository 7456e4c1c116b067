"""Units as files name them, and the wavelength of a photon energy."""

from __future__ import annotations

from scipy import constants

from ptychow.errors import InputError
from ptychow.optics.propagation import photon_wavelength

PLANCK_TIMES_LIGHT = constants.h * constants.c  # J m
ELECTRONVOLT = constants.e  # J

# Of positions, as a person writes them; "px" are object pixels.
UNITS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "px": 1.0}
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
            return UNITS[name]
    raise InputError("unknown unit", field=field, found=unit or "nothing", expected="m, mm, um, nm or angstrom")


def joules(unit: str, *, field: str) -> float:
    """How many joules a unit of energy is. Raises InputError, naming `field`, for one not known."""
    found = ENERGIES.get(unit.strip().lower())
    if found is None:
        raise InputError("unknown unit", field=field, found=unit or "nothing", expected="J, eV or keV")
    return found


def wavelength_of(energy: float | None) -> float | None:
    """Wavelength (m) of a photon energy (J); None where that is unknown: absent, or 0 as some writers say it."""
    return photon_wavelength(energy / ELECTRONVOLT) if energy else None
