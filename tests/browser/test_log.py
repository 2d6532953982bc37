"""The log of a JupyterLab: a kernel's traceback fails a test, the server's own race does not."""

from tests.browser.conftest import tracebacks

CALL = '      File "websocket.py", line 88, in select_subprotocol\n        of = self.connection\n'
UNCAUGHT = (
    "[E 2026-01-02 03:04:05.678 ServerApp] Uncaught exception GET /api/kernels/1/channels\n"
    "    HTTPServerRequest(protocol='http', method='GET')\n"
    f"    Traceback (most recent call last):\n{CALL}    %s\n"
    '[E 2026-01-02 03:04:05.680 ServerApp] {\n      "Host": "127.0.0.1"\n    }\n'
)
RACE = UNCAUGHT % "AttributeError: 'NoneType' object has no attribute 'kernel_ws_protocol'"
OTHER = UNCAUGHT % "AttributeError: 'NoneType' object has no attribute 'kernel_ws_protocols'"
OF_KERNEL = (
    "Traceback (most recent call last):\n"
    '  File "ipykernel/comm.py", line 1, in handle_msg\n    callback(msg)\n'
    "AttributeError: 'NoneType' object has no attribute 'kernel_ws_protocol'\n"
)


def found_in(log, tmp_path):
    (tmp_path / "lab.log").write_text(log)
    return tracebacks(tmp_path)


def test_a_page_that_was_left_while_its_socket_opened_is_no_failure(tmp_path):
    assert found_in(f"{RACE}[I] Saving file\n{RACE}", tmp_path) == []


def test_every_other_traceback_is_found_beside_it(tmp_path):
    of_kernel, other = found_in(f"{RACE}{OF_KERNEL}{RACE}{OTHER}{RACE}", tmp_path)
    assert of_kernel == OF_KERNEL.rstrip("\n")
    assert "'kernel_ws_protocols'" in other


def test_a_traceback_that_is_cut_off_or_led_to_another_is_found(tmp_path):
    cut = f"{RACE}Traceback (most recent call last):\n"
    assert len(found_in(cut, tmp_path)) == 1
    led = RACE.replace(
        "    Traceback", f"    Traceback (most recent call last):\n{CALL}    Traceback"
    )
    assert len(found_in(led, tmp_path)) == 1
