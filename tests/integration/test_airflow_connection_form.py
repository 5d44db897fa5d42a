"""The connection as a person meets it: made by REST, its form in a browser, its Test button pressed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.airflow_page import api_server, browser
from support.airflow_process import new_home
from support.ports import wait_until

from airflow_provider_varian.connection_fields import CONNECTION_FIELDS
from airflow_provider_varian.simulator.daemon.server import SimulatedDaemon
from airflow_provider_varian.simulator.daemon.trusted import TrustedEntity
from airflow_provider_varian.simulator.holdings.synthetic import Clinic

pytestmark = [pytest.mark.airflow, pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def daemon():
    trusted = [TrustedEntity(ae_title="AIRFLOW", host="127.0.0.1", port=11112)]
    with SimulatedDaemon(Clinic(days=2, patients=1, matrix=32), ae_title="VMSDBD", trusted=trusted) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with api_server(new_home(tmp_path_factory.mktemp("airflow"))) as running:
        yield running


@pytest.fixture(scope="module")
def window(program, tmp_path_factory):
    with browser(program("chromium"), program("chromedriver"), tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("SCREENSHOT_DIR") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_connection(page, connection_id, daemon, **extra):
    host, port = daemon.address
    fields = {"called_ae_title": "VMSDBD", "timezone": "Europe/Zurich", "receiver_port": 11112} | extra
    page.rest(
        "POST",
        "connections",
        {
            "connection_id": connection_id,
            "conn_type": "dicom",
            "host": host,
            "port": port,
            "extra": json.dumps(fields),
        },
    )


def _press(window, row, label):
    """Press a button of a connection's row; by script, since a tooltip may lie over it."""
    button = f"//tr[.//*[text()='{row}']]//button[@aria-label='{label}']"
    wait_until(lambda: window.find_elements("xpath", button), what=f"the button {label} of {row}")
    window.execute_script("arguments[0].click()", window.find_element("xpath", button))


def _message(window) -> str:
    toasts = "[data-scope='toast'][data-part='root']"
    height = window.execute_script("return window.innerHeight")

    def is_there() -> bool:
        # It slides in from below; a picture taken before would cut it off.
        shown = [each for each in window.find_elements("css selector", toasts) if each.text]
        return bool(shown) and all(each.rect["y"] + each.rect["height"] <= height for each in shown)

    wait_until(is_there, what="a message")
    return "\n".join(each.text for each in window.find_elements("css selector", toasts))


def test_test_button_says_what_works(page, daemon, window, pictures):
    _make_connection(page, "aria", daemon)
    window.get(f"{page.url}/connections")
    _press(window, "aria", "Test Connection")
    message = _message(window)
    window.save_screenshot(str(pictures / "test-button-works.png"))
    assert "Successful" in message
    assert "VMSDBD@127.0.0.1" in message
    assert "C-FIND answers" in message


def test_test_button_with_a_wrong_calling_ae_title_says_where_to_enter_it(page, daemon, window, pictures):
    _make_connection(page, "untrusted", daemon, calling_ae_title="AIRFLOV")
    window.get(f"{page.url}/connections")
    _press(window, "untrusted", "Test Connection")
    message = _message(window)
    window.save_screenshot(str(pictures / "test-button-wrong-calling-ae-title.png"))
    assert "Failed" in message
    assert "AIRFLOV" in message
    assert "Trusted Application Entities" in message


def _open_extra_fields(window):
    button = "//*[@role='dialog']//button[normalize-space()='Extra Fields']"
    wait_until(lambda: window.find_elements("xpath", button), what="the form")
    # Opened again until it is: a click while the dialog still moves is lost.
    wait_until(lambda: _opened(window, button), what="the extra fields")


def _opened(window, button) -> bool:
    found = window.find_element("xpath", button)
    if found.get_attribute("aria-expanded") != "true":
        window.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()
    return "Called AE title" in _dialog(window)


def _dialog(window) -> str:
    return window.find_element("css selector", "[role='dialog']").text


def _values(window) -> list[str]:
    inputs = window.find_elements("css selector", "[role='dialog'] input, [role='dialog'] textarea")
    return [each.get_attribute("value") for each in inputs]


def test_form_of_a_new_connection_shows_every_field_with_its_default(page, window, pictures):
    from selenium.webdriver.common.keys import Keys

    window.get(f"{page.url}/connections")
    add = "//button[normalize-space()='Add Connection']"
    wait_until(lambda: window.find_elements("xpath", add), what="the page")
    window.find_element("xpath", add).click()
    kind = "[role='dialog'] input[role='combobox']"
    wait_until(lambda: window.find_elements("css selector", kind), what="the form")
    window.find_element("css selector", kind).send_keys("DICOM peer", Keys.ENTER)
    _open_extra_fields(window)
    window.set_window_size(1400, 4400)
    window.save_screenshot(str(pictures / "connection-form-new.png"))
    text = _dialog(window)
    for field in CONNECTION_FIELDS:
        assert field.label in text, field.key
        assert field.help in text, field.key
    for default in ("AIRFLOW", "3600", "131072"):
        assert default in _values(window)


def test_form_of_a_connection_made_by_rest_shows_its_values(page, daemon, window, pictures):
    _make_connection(page, "shown", daemon, move_destination="VMSFD")
    window.set_window_size(1400, 1300)
    window.get(f"{page.url}/connections")
    _press(window, "shown", "Edit Connection")
    wait_until(lambda: "Host of the peer" in _dialog(window), what="the form")
    assert "127.0.0.1" in _values(window)
    _open_extra_fields(window)
    window.save_screenshot(str(pictures / "connection-form-edit.png"))
    for value in ("VMSDBD", "VMSFD", "Europe/Zurich", "11112"):
        assert value in _values(window)


def test_a_secret_of_the_connection_does_not_come_back_from_rest(page, daemon):
    _make_connection(page, "secret", daemon, tls=True, tls_private_key="hush", tls_private_key_password="hush too")
    shown = json.loads(page.rest("GET", "connections/secret")["extra"])
    assert shown["tls_private_key"] == "***"
    assert shown["tls_private_key_password"] == "***"
    assert shown["called_ae_title"] == "VMSDBD"
