"""Errors of a worker process are those of this one."""

import pickle

from trilemma.errors import InputError


def test_bad_input_found_in_another_process_says_the_same_here():
    error = InputError("chat.yaml: limits[0]", expected="a time", found="'x'", hint="did you mean '1 s'?")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is InputError
    assert (str(back), back.where, back.hint, back.exit_code) == (str(error), error.where, error.hint, 2)
