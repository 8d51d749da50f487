"""What schemathesis sends where the document says image or archive: whole ones, damaged ones, and nothing of the kind.

Named in schemathesis.toml.
"""

import schemathesis
from hypothesis import strategies as st

from tests.support import mutants

seeds = st.integers(0, 2**32)
photos = st.one_of(
    st.sampled_from(list(mutants.photos().values())),
    seeds.map(lambda seed: mutants.photo(seed).data),
    st.binary(max_size=64),
)
archives = st.one_of(
    st.sampled_from(list(mutants.archives().values())),
    seeds.map(lambda seed: mutants.archive(seed).data),
    st.binary(max_size=64),
)
schemathesis.openapi.media_type("image/*", photos)
for kind in ("application/zip", "application/x-tar"):
    schemathesis.openapi.media_type(kind, archives)
