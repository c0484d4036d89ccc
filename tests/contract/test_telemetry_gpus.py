"""GPUs read through NVIDIA's own binding from a real shared library, built here in C.

This machine need not have a GPU: the library answers as a driver does, refusals included.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

FAKE_DRIVER = r"""
#include <string.h>
#include <stdlib.h>
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned long long total, free, used; } memory_t;
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, LOST = 15 };
static int count(void) { const char *n = getenv("FAKE_GPUS"); return n ? atoi(n) : 0; }
static int is_lost(long gpu) {
    const char *n = getenv("FAKE_LOST");
    return n && atoi(n) == gpu - 1;
}
int nvmlInitWithFlags(unsigned f) { return getenv("FAKE_NO_DRIVER") ? 9 : OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int e) { return "an error of the fake driver"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = count(); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) {
    if (is_lost(i + 1) && getenv("FAKE_LOST_EARLY")) return LOST;
    *d = (void *)(long)(i + 1);
    return OK;
}
#define CHECK(d) do { if (!(d)) return INVALID; if (is_lost((long)(d))) return LOST; } while (0)
int nvmlDeviceGetName(void *d, char *s, unsigned n) {
    CHECK(d);
    const char *odd = getenv("FAKE_ODD");
    int is_odd = odd && atoi(odd) == (long)d - 1;
    strncpy(s, is_odd ? "Tesla T4" : "NVIDIA H100 80GB HBM3", n);
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *d, rates_t *r) {
    CHECK(d); if ((long)d == 2) return NOT_SUPPORTED;
    r->gpu = 87; r->memory = 41; return OK;
}
int nvmlDeviceGetMemoryInfo(void *d, memory_t *m) {
    CHECK(d); m->total = 81559ull << 20; m->used = 1024ull << 20; m->free = m->total - m->used;
    return OK;
}
int nvmlDeviceGetTemperature(void *d, int s, unsigned *t) { CHECK(d); *t = 64; return OK; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { CHECK(d); *mw = 512345; return OK; }
int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, unsigned long long *n) {
    CHECK(d); if ((long)d == 2) return NOT_SUPPORTED;
    *n = (type == 1 && counter == 0) ? 3 : 99; return OK;
}
#ifdef OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons
#else
int nvmlDeviceGetCurrentClocksEventReasons
#endif
(void *d, unsigned long long *r) { CHECK(d); *r = 0x1 | 0x4 | 0x40; return OK; }
"""

PROGRAM = """
import json, sys
from pathlib import Path
import msgspec
from hyperion.adapters.telemetry.host import HostTelemetry
host = HostTelemetry(Path("/"))
reading, capacity = host.read(1), host.capacity()
host.close()
print(json.dumps({
    "gpus": msgspec.to_builtins(reading.gpus), "after": len(host.read(2).gpus),
    "count": capacity.gpus, "type": capacity.gpu_type, "loaded": "pynvml" in sys.modules,
}))
"""


@pytest.fixture(scope="module", params=["", "OLD_DRIVER"], ids=["driver", "old-driver"])
def driver(request, tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to build a driver library with")
    directory = tmp_path_factory.mktemp("driver")
    (directory / "driver.c").write_text(FAKE_DRIVER)
    define = [f"-D{request.param}"] if request.param else []
    argv = [compiler, "-shared", "-fPIC", *define, "-o", "libnvidia-ml.so.1", "driver.c"]
    subprocess.run(argv, cwd=directory, check=True, timeout=60)
    return directory


def measured(driver, **settings):
    """A fresh process, since a library once loaded stays."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FAKE_")}
    environ |= {"LD_LIBRARY_PATH": str(driver), **settings}
    argv = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_gpu_is_read_in_full_and_what_it_does_not_say_stays_unsaid(driver):
    said = measured(driver, FAKE_GPUS="2")
    full, sparse = said["gpus"]
    assert full == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "utilization_percent": 87.0,
        "memory_used_mb": 1024.0,
        "memory_total_mb": 81559.0,
        "memory_bandwidth_percent": 41.0,
        "temperature_celsius": 64.0,
        "power_watts": 512.345,
        "throttle_reasons": ["power cap", "hardware thermal"],
        "ecc_errors_uncorrected": 3,
    }
    missing = {"utilization_percent", "memory_bandwidth_percent", "ecc_errors_uncorrected"}
    assert full.keys() - sparse.keys() == missing
    assert (said["count"], said["type"]) == (2, "H100")
    assert said["after"] == 0  # closed


@pytest.mark.parametrize("early", [{}, {"FAKE_LOST_EARLY": "1"}], ids=["late", "early"])
def test_a_gpu_that_fell_off_the_bus_hides_no_other(driver, early):
    said = measured(driver, FAKE_GPUS="3", FAKE_LOST="1", **early)
    assert said["gpus"][1] == {"index": 1}
    assert [x.get("power_watts") for x in said["gpus"]] == [512.345, None, 512.345]
    assert said["count"] == 1  # those after it would be addressed wrongly


def test_mixed_types_count_up_to_the_first_that_differs(driver):
    said = measured(driver, FAKE_GPUS="4", FAKE_ODD="2")
    assert (said["count"], said["type"], len(said["gpus"])) == (2, "H100", 4)


@pytest.mark.parametrize("settings", [{}, {"FAKE_GPUS": "2", "FAKE_NO_DRIVER": "1"}])
def test_a_library_without_gpus_or_without_a_driver_gives_none(driver, settings):
    said = measured(driver, **settings)
    assert (said["gpus"], said["count"], said["type"]) == ([], 0, "")


def test_without_the_library_its_binding_is_not_even_loaded(tmp_path):
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        said = measured(tmp_path)
        assert (said["gpus"], said["loaded"]) == ([], False)
    else:
        pytest.skip("this machine has NVIDIA's library")
