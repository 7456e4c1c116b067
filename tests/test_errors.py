import pytest

from ptychow.errors import InputError, MismatchError, MissingExtraError, PtychoWError, about


def test_an_input_error_says_where_what_and_what_to_do_in_one_order():
    error = InputError("does not fit", file="a.cxi", field="mask", found=3, expected="4", remedy="Mend it")
    assert str(error) == "a.cxi: mask: does not fit; found 3, expected 4. Mend it"
    assert str(InputError("empty")) == "empty"
    assert str(InputError("odd", found=0)) == "odd; found 0"


def test_exit_codes_tell_input_from_failure():
    assert PtychoWError("x").exit_code == MissingExtraError("x", "solver").exit_code == 1
    assert InputError("x").exit_code == MismatchError("x").exit_code == 2


@pytest.mark.parametrize("kind", [InputError, MismatchError])
def test_about_names_the_file_once(kind):
    with pytest.raises(kind, match=r"^folder/a.cxi: mask: wrong$"), about("folder/a.cxi"):
        raise kind("wrong", field="mask")
    with pytest.raises(kind, match=r"^a.cxi: wrong$"), about("folder/a.cxi"):
        raise kind("wrong", file="a.cxi")


def test_about_leaves_failures_alone():
    with pytest.raises(PtychoWError, match=r"^broken$"), about("a.cxi"):
        raise PtychoWError("broken")
