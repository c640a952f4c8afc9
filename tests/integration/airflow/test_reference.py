"""The page of DAGs says what Airflow reads from their files."""

from airflow.dag_processing.dagbag import DagBag

from flead.stack.home import CHECKOUT
from reference.dags import dags_page


def test_the_page_of_dags_is_that_of_airflow():
    page = dags_page(DagBag(str(CHECKOUT / "dags")).dags.values())

    written = (CHECKOUT / "docs" / "reference" / "dags.md").read_text()
    assert page == written, "run `make reference`"
    assert (
        "* Tasks, in their order: `wait_for_updates`, `open_round`, `aggregate`, `publish`" in page
    )
