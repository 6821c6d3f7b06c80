import signal

from ..conftest import app, make_settings, serving
from dev.offline_openai import OfflineOpenAI


def test_a_server_outside_the_main_thread_leaves_signals_alone(offline: OfflineOpenAI) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with serving(app.create_app(make_settings(offline))) as service:
        assert service.client.get("/livez").is_success
        assert signal.getsignal(signal.SIGTERM) is before
