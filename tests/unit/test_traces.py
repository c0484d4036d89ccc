"""Traces of others, row by row: what becomes a job, what is told as bad, what is refused whole."""

import pytest

from hyperion.cli.exits import Failure
from hyperion.cli.workloads import Wish, prepared, read_rows, read_trace
from hyperion.sim import machines
from hyperion.sim.trace import TraceError, at_load, busy, gang, with_estimates
from hyperion.sim.traces import catalogue
from hyperion.sim.traces.cells import Reading

READING = Reading(gpus_per_node=8)
PHILLY = "submit_ts,vc,num_gpus,duration_s\n"
SACCT = "JobID|User|Partition|Submit|Start|End|Elapsed|State|ExitCode|ReqMem|AllocTRES|NNodes\n"


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path, text, name="trace.csv"):
    return read_trace(str(written(tmp_path, text, name)), None, READING)[0]


def test_philly_rows_are_jobs_in_order_of_arrival(tmp_path):
    trace = read(
        tmp_path,
        PHILLY + "2017-10-01 12:00:10,b,16,60\n2017-10-01T12:00:00+00:00,a,1,30.5\n",
    )
    first, second = trace.jobs
    assert (first.at_ms, first.runs_ms, first.job.replicas) == (0, 30_500, 1)
    assert (second.at_ms, second.job.queue, second.job.replicas) == (10_000, "b", 2)
    assert second.gpus_milli == 16_000
    assert trace.bad_rows == 0


@pytest.mark.parametrize(
    ("row", "column", "told"),
    [
        ("yesterday,a,1,30", "submit_ts", 'found "yesterday", expected a time'),
        ("2017-10-01,a,,30", "num_gpus", "is empty, expected a number"),
        ("2017-10-01,a,none,30", "num_gpus", 'found "none", expected a number'),
        ("2017-10-01,a,1.5,30", "num_gpus", "found 1.5, expected a whole number"),
        ("2017-10-01,a,1,-3", "duration_s", 'found "-3", expected a number from'),
        ("2017-10-01,a,1,inf", "duration_s", 'found "inf"'),
        ("2017-10-01,a,1,30,what,now", "", "has 2 cells more than the header has names"),
        ("2017-10-01,a", "num_gpus", "is empty"),
    ],
)
def test_a_bad_row_is_counted_with_its_place(tmp_path, row, column, told):
    trace = read(tmp_path, PHILLY + "2017-10-01,a,1,30\n" + row + "\n2017-10-02,a,1,30\n")
    assert len(trace.jobs) == 2
    assert trace.bad_rows == 1
    (bad,) = trace.bad
    assert (bad.line, bad.column) == (3, column)
    assert told in bad.message


def test_each_published_trace_has_a_reader_that_makes_a_job_of_a_good_row():
    rows = {
        "philly": {"submit_ts": "2017-10-01", "vc": "a", "num_gpus": 4, "duration_s": 9},
        "pai": {"arrival_s": 5, "duration_s": 9, "cpus": 128},
        "openb": {
            "name": "openb-pod-1", "num_gpu": 1, "gpu_milli": 460, "cpu_milli": 6000,
            "memory_mib": 12288, "creation_s": 5, "deletion_s": 14, "qos": "BE",
            "gpu_spec_33pct": "V100M16|T4",
        },
        "chronus": {
            "num_gpu": 1, "submit_s": 1, "duration_s": 9, "user": "u", "job_type": "strict",
            "expect_time_list": "299-310",
        },
        "gavel": {
            "job_type": "ResNet-18 (batch size 64)", "total_steps": 144, "arrival_s": 1.0,
            "scale_factor": 1, "vc": "x",
        },
        "shockwave": {
            "job_type": "A3C", "total_steps": 45, "arrival_s": 1.0, "scale_factor": 1,
            "mode": "gns",
        },
        "sia": {"time": 1.0, "application": "bert", "num_replicas": 6, "family": "saturn"},
        "acme": {
            "job_id": 1, "arrival_time": 0.0, "num_iteration": 12,
            "iteration_computing_time": 0.5, "iteration_networking_time": 0.25,
            "gpu_workers": 8, "gpu_per_worker": 8.0,
        },
        "slurm": {"JobID": "7", "Submit": "2026-01-01T00:00:00", "ElapsedRaw": "9"},
    }  # fmt: skip
    assert set(rows) == set(catalogue.SOURCES)
    runs_s = {}
    for name, row in rows.items():
        trace = catalogue.source(name).reader([(2, row)], READING)
        assert trace.bad_rows == 0, trace.bad
        runs_s[name] = round(trace.jobs[0].runs_ms / 1000, 1)
    assert runs_s == {
        "philly": 9, "pai": 9, "openb": 9, "chronus": 9, "gavel": 9, "shockwave": 10,
        "sia": 1800, "acme": 9, "slurm": 9,
    }  # fmt: skip


def test_particulars_of_the_published_traces():
    def only(kind, **row):
        return catalogue.source(kind).reader([(2, row)], READING).jobs[0]

    shared = only(
        "openb", name="p", num_gpu=1, gpu_milli=460, cpu_milli=6000, memory_mib=5, creation_s=0,
        deletion_s=9, qos="LS", gpu_spec_33pct="V100M16|V100M32",
    )  # fmt: skip
    assert [r.gpu_type for r in shared.job.alternatives] == ["V100", "V100-32GB"]
    assert shared.gpus_milli == 460
    due = only(
        "chronus", num_gpu=1, submit_s=100, duration_s=9, expect_time_list="299", job_type="soft"
    )
    assert due.due_ms == 199_000
    adaptive = only("sia", time=0, application="cifar10", num_replicas=4)
    assert adaptive.job.elastic.min == 1
    unknown = catalogue.source("sia").reader(
        [(9, {"time": 0, "application": "cifar", "num_replicas": 4})], READING
    )
    assert "expected one of bert, cifar10" in unknown.bad[0].message


# -- Slurm ----------------------------------------------------------------------------------------


def sacct(tmp_path, *rows, header=SACCT):
    return read(tmp_path, header + "".join(row + "\n" for row in rows), "sacct.txt")


def test_sacct_jobs_with_their_gpus_memory_and_ends(tmp_path):
    trace = sacct(
        tmp_path,
        "10|ann|gpu,long|2026-01-01T00:00:00|2026-01-01T01:00:00|2026-01-01T03:00:00|02:00:00"
        "|COMPLETED|0:0|4000Mc|billing=64,cpu=16,gres/gpu:a100=16,mem=64000M,node=2|2",
        "10.batch||gpu|2026-01-01T00:00:00|||02:00:00|COMPLETED|0:0|||1",
        "11_3|bob|cpu|2026-01-01T00:00:30|2026-01-01T01:00:00|2026-01-01T01:01:00|00:01:00"
        "|FAILED|7:0|2Gn|cpu=4,node=1|1",
        "12|bob|cpu|2026-01-01T00:01:00|Unknown|2026-01-01T00:02:00|00:00:00"
        "|CANCELLED by 1000|0:0|2G||1",
        "13_[1-100%5]|bob|cpu|2026-01-01T00:01:00|Unknown|Unknown|00:00:00|PENDING|0:0|2G||1",
        "14|bob|cpu|Unknown|Unknown|Unknown|00:10:00|COMPLETED|0:0|2G||1",
        "15|bob|cpu|2026-01-01T00:01:00|Unknown|Unknown|soon|COMPLETED|0:0|2G||1",
    )
    ten, eleven, twelve = trace.jobs
    assert (ten.job.id, ten.job.replicas, ten.job.queue, ten.runs_ms) == (
        "slurm-10", 2, "gpu", 7_200_000,
    )  # fmt: skip
    request = ten.job.alternatives[0]
    assert (request.gpus_milli, request.gpu_type) == (8000, "A100")
    assert (request.cpus_milli, request.memory_mib) == (8000, 32_000)
    assert eleven.exit_codes == (7,)
    assert eleven.job.alternatives[0].memory_mib == 2048
    assert twelve.cancel_after_ms == 60_000
    assert [(b.line, b.column) for b in trace.bad] == [
        (6, "Elapsed"), (7, "Submit"), (8, "Elapsed"),
    ]  # fmt: skip
    assert any("1 rows are steps" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:30:00", 95_400), ("02:30:05", 9005), ("30:05", 1805), ("00:00:01.5", 1.5),
        ("2-03", 183_600), ("45", 2700),
    ],
)  # fmt: skip
def test_sacct_spans(tmp_path, text, seconds):
    trace = sacct(tmp_path, f"1|2026-01-01T00:00:00|{text}", header="JobID|Submit|Elapsed\n")
    assert trace.jobs[0].runs_ms == 1000 * seconds


def test_a_requeued_job_is_a_job_each_time_it_ran(tmp_path):
    row = "5|2026-01-01T00:00:00|00:10:00"
    trace = sacct(tmp_path, row, row, header="JobID|Submit|Elapsed\n")
    assert [j.job.id for j in trace.jobs] == ["slurm-5", "slurm-5-run2"]


# -- refused whole --------------------------------------------------------------------------------


def test_an_unknown_trace_is_told_with_the_nearest_name_and_the_list():
    with pytest.raises(TraceError, match=r'called "phily"; did you mean philly\? \(traces: philly'):
        catalogue.source("phily")


def test_a_file_of_no_known_trace_is_told_with_its_columns(tmp_path):
    with pytest.raises(TraceError, match=r"its columns \(a, b\) are those of no trace"):
        read(tmp_path, "a,b\n1,2\n")


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        ("missing.csv", "no file missing.csv"),
        ("philly", "where is philly_2017.parquet"),
        ("slurm", "slurm has no published file"),
    ],
)
def test_a_trace_that_is_not_there(trace, told):
    with pytest.raises(Failure, match=told):
        read_trace(trace, None, READING)


def test_bytes_that_are_no_text_are_told_with_the_file(tmp_path):
    path = tmp_path / "binary.csv"
    path.write_bytes(b"JobID,Submit\n\xff\xfe,\x00\n")
    with pytest.raises(Failure, match=r"binary\.csv"):
        list(read_rows(path)[0])


def wish(**changes):
    plain = {
        "trace": "", "generator": "training", "data": None, "nodes": "4", "gpus_per_node": 8,
        "gpu_type": "A100", "usd_per_gpu_hour": 1.0, "jobs": 50, "load": None,
        "estimates": "none", "seed": 1,
    }  # fmt: skip
    return Wish(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"generator": "trainig"}, "did you mean training"),
        ({"nodes": "0"}, "--nodes 0"),
        ({"nodes": "many"}, "neither a number nor a file"),
        ({"load": 1e9}, "cannot keep"),
    ],
)
def test_wishes_that_cannot_be_met(changes, told):
    with pytest.raises(Failure, match=told):
        prepared(wish(**changes))


def test_a_trace_without_a_single_job_is_refused(tmp_path):
    path = written(tmp_path, PHILLY + "never,a,1,30\n")
    with pytest.raises(Failure, match="no row is a job"):
        prepared(wish(generator="", trace=str(path)))


# -- shaping --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "replicas", "each"), [(1, 1, 1), (8, 1, 8), (12, 2, 6), (16, 2, 8), (17, 17, 1)]
)
def test_a_gang_is_of_equal_replicas(gpus, replicas, each):
    assert gang(gpus, 8) == (replicas, each)


def test_a_load_is_what_the_jobs_keep_busy_while_they_arrive():
    trace, nodes = prepared(wish(jobs=300, load=0.7))
    assert busy(trace, gpus=True) == pytest.approx(0.7 * 32_000, rel=0.01)
    slower = at_load(trace, nodes, 0.35)
    assert slower.span_ms > trace.span_ms


def test_estimates_are_the_next_rung_or_exact_and_a_users_own_is_kept(tmp_path):
    header = "JobID|Submit|Elapsed|Timelimit\n"
    trace = sacct(
        tmp_path,
        "1|2026-01-01T00:00:00|00:11:00|UNLIMITED",
        "2|2026-01-01T00:00:00|00:11:00|1-00:00:00",
        header=header,
    )
    rounded = [j.job.expected_s for j in with_estimates(trace, "rounded").jobs]
    exact = [j.job.expected_s for j in with_estimates(trace, "exact").jobs]
    assert rounded == [3600, 86_400]
    assert exact == [660, 86_400]


def test_a_list_of_nodes_gives_machines_with_their_types():
    rows = [
        {"sn": "a", "cpu_milli": "96000", "memory_mib": "1000", "gpu": "8", "model": "V100M32"},
        {"sn": "b", "cpu_milli": "32000", "memory_mib": "1000", "gpu": "0", "model": ""},
    ]
    first, second = machines.listed(rows, {"V100-32GB": 2.0})
    assert (first.capacity.gpu_type, first.usd_per_hour) == ("V100-32GB", 16.0)
    assert (second.capacity.gpus, second.capacity.gpu_type) == (0, "")
    with pytest.raises(TraceError, match="line 2, column cpu_milli"):
        machines.listed([{"sn": "a", "cpu_milli": "none", "memory_mib": "1", "gpu": "0"}])
