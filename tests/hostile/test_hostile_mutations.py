"""Whatever becomes of a file: it is read, or refused with an error of ours."""

import random
from itertools import islice

import pytest
from binary_mutations import BINARY_READERS, files, mutations

from noiserobust.errors import NoiseRobustError

COUNT = 25


@pytest.mark.parametrize("name", BINARY_READERS)
def test_malformed_files_are_read_or_refused(tmp_path, name):
    write_valid, read = BINARY_READERS[name]
    path = tmp_path / name
    write_valid(path)
    read(path)
    refused = 0
    for file in files(path):
        valid = file.read_bytes()
        for content in islice(mutations(valid, random.Random(f"{name}/{file.name}")), COUNT):
            file.write_bytes(content)
            try:
                read(path)
            except NoiseRobustError as error:
                assert str(error).startswith("Expected ")
                refused += 1
        file.write_bytes(valid)
    read(path)
    assert refused >= COUNT // 2
