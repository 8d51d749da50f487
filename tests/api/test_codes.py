"""The contract of error codes: each one that a client can cause is caused by a test."""

from collections.abc import Callable

from service.http.errors import RETRY_AFTER_S
from tests.api import (
    test_access_http,
    test_changes_http,
    test_errors_http,
    test_evaluate_html,
    test_evaluate_http,
    test_explain_http,
    test_limits_http,
    test_readiness,
)
from tests.support.bad_requests import BAD_REQUESTS
from tests.support.codes import STATUS_OF

CAUSED_BY: dict[str, Callable[..., None]] = {
    "client_disconnected": test_limits_http.test_065_a_client_that_goes_away_in_the_middle_harms_nobody,
    "payload_too_large": test_limits_http.test_a_body_in_chunks_is_cut_off_at_the_limit,
    "upload_timeout": test_limits_http.test_060_an_upload_that_stalls_is_told_so_and_cut_off,
    "evaluation_too_large": test_limits_http.test_a_set_that_is_too_large_is_refused,
    "not_acceptable": test_evaluate_html.test_an_evaluation_without_a_page_says_so,
    "archive_too_large": test_limits_http.test_a_set_that_is_too_large_is_refused,
    "overloaded": test_evaluate_http.test_while_one_evaluation_runs_searches_are_answered_and_another_evaluation_is_not,
    "deadline_exceeded": test_limits_http.test_an_answer_that_would_come_too_late_is_not_waited_for,
    "not_ready": test_readiness.test_an_application_waits_for_its_index_and_then_keeps_it,
    "draining": test_readiness.test_a_server_that_drains_says_so_and_goes_on_answering,
    "unauthorized": test_access_http.test_068_without_a_key_that_is_known_nothing_is_answered_but_probes,
    "explanation_unavailable": test_explain_http.test_a_model_that_cannot_explain_says_so,
    "forbidden": test_access_http.test_a_key_for_searches_does_not_open_evaluations,
    "delta_unusable": test_changes_http.test_while_the_log_cannot_be_used_searches_go_on_and_that_is_told_once,
    "gallery_full": test_changes_http.test_a_gallery_that_has_changed_too_much_waits_for_a_fold,
    "internal": test_errors_http.test_a_bug_is_told_without_its_inside_counted_and_logged_with_its_traceback,
}
NO_CLIENT_CAUSES = {
    "embedding_invalid",
    "backend_unavailable",
    "photos_skipped",  # of a build that was asked to be strict
    "gallery_shrank",  # of a build
}


def test_every_code_that_a_client_can_cause_is_caused_by_a_test() -> None:
    tabled = {bad.code for bad in BAD_REQUESTS}
    assert tabled | CAUSED_BY.keys() | NO_CLIENT_CAUSES == STATUS_OF.keys()
    assert not tabled & CAUSED_BY.keys()


def test_trying_again_is_advised_where_it_can_help_and_only_there() -> None:
    assert {status for status in STATUS_OF.values() if status in (429, 503)} == RETRY_AFTER_S.keys()


def test_only_the_server_s_own_failures_are_500() -> None:
    assert {code for code, status in STATUS_OF.items() if status == 500} == {"internal", "embedding_invalid"}
