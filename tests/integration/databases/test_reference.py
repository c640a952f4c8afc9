"""The page of tables says what a migrated database holds."""

import pytest

from flead.stack.home import CHECKOUT
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from reference.tables import tables_page

pytestmark = pytest.mark.servers


def test_the_page_of_tables_is_that_of_a_migrated_database(database_url):
    migrate(database_url)

    with connect(database_url) as connection, connection.cursor() as cursor:
        page = tables_page(cursor)

    written = (CHECKOUT / "docs" / "reference" / "tables.md").read_text()
    assert page == written, "run `make reference`"
    assert (
        "| `status` | text |  | One of `candidate`, `promoted`, `rejected`, `rolled_back`. |"
        in page
    )
