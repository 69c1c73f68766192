"""Options: their fields as keywords of the front door, and what they refuse."""

import dataclasses
import inspect
import typing

import pytest

from resynth_fast import Attributor, Options
from resynth_fast.errors import ConfigError
from resynth_fast.options import OptionFields


def test_the_keywords_of_the_front_door_are_the_fields_of_the_options() -> None:
    assert typing.get_type_hints(OptionFields) == typing.get_type_hints(Options)
    assert list(typing.get_type_hints(OptionFields)) == [field.name for field in dataclasses.fields(Options)]
    assert inspect.signature(Attributor.open).parameters["options"].annotation == "Unpack[OptionFields]"


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="refs"):
        Attributor.open(refs=4)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": 65}, "references is 65; it must be 1 … 64"),
        ({"steps": 0}, "steps is 0; it must be 1 … 1000"),
        ({"seed": -1}, "seed is -1; it must be 0 … "),
        ({"deadline": -1.0}, "deadline is -1.0; it must be seconds above 0"),
        ({"policy": "sometimes"}, "policy is 'sometimes'; it must be generate, look-up, both"),
        ({"policy": "look-up", "race": True}, "policy look-up generates nothing; leave out"),
        ({"same_source": True, "max_pictures": 9}, "together and same_source rest on all references"),
    ],
)
def test_a_wrong_option_names_itself_and_the_way_out(options: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**options)


def test_the_old_name_of_the_front_door_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match="use Attributor.open"):
        attributor = Attributor.from_zoo(references=3, threads=1)
    assert attributor.options == Options(references=3)
