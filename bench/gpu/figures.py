"""Rows of figures, their goals, and the comparison of two runs."""

from measure import percentile

GOALS_MS = {0.5: 5, 0.99: 20, 0.999: 50}
"""Order → the GPU computes nothing of the paused job."""
PACING_COST = 2
LOGIC_ONLY = "cpu: logic only, not a GPU figure"


def named(part):
    return "max" if part == 1 else f"p{100 * part:g}"


def spread(figure, values, unit="ms", parts=(0.5, 0.99, 1.0), goals=None):
    """A row per percentile. Of fewer than 1,000 values p99.9 is the largest, and says so."""
    rows = []
    for part in parts:
        few = part < 1 and 0 < len(values) < round(1 / (1 - part))
        value = round(percentile(values, part), 3) if values else None
        one = row(f"{figure}, {named(part)}", value, unit, n=len(values))
        if few:
            one["note"] = "the largest"
        if goals and part in goals:
            one["goal"] = goals[part]
        rows.append(one)
    return rows


def row(figure, value, unit="", **more):
    return {"figure": figure, "value": value, "unit": unit, **more}


def cost_percent(unpaced, paced):
    """By how much fewer units a second are done; below 0 where pacing was faster."""
    return 100 * (1 - paced / unpaced)


def judged(rows, is_gpu):
    """Goals are for a GPU: without one they are shown, and nothing is met or missed."""
    for one in rows:
        if "goal" not in one:
            continue
        if not is_gpu and not one.get("anywhere"):
            one["goal_of_a_gpu"] = one.pop("goal")
        elif one["value"] is not None:
            one["met"] = one["value"] <= one["goal"]
    return rows


def told(one):
    """Of how many values a figure is, and its goal, in words."""
    of = f"n={one['n']} " if "n" in one else ""
    of += f"{one['note']} " if "note" in one else ""
    return (of + _goal(one)).rstrip()


def _goal(one):
    if "goal_of_a_gpu" in one:
        return f"(goal of a GPU ≤ {one['goal_of_a_gpu']})"
    if "goal" not in one:
        return ""
    return f"goal ≤ {one['goal']}: " + (
        "not measured" if "met" not in one else "met" if one["met"] else "MISSED"
    )


def differences(wanted, found):
    """Between two runs, {"losses": hex words, "parameters": SHA-256}: in words; none: []."""
    faults = []
    if len(wanted["losses"]) != len(found["losses"]):
        faults.append(f"{len(found['losses'])} steps instead of {len(wanted['losses'])}")
    for step, (a, b) in enumerate(zip(wanted["losses"], found["losses"], strict=False), 1):
        if a != b:
            faults.append(f"the loss of step {step} is {b}, not {a}")
            break
    if wanted["parameters"] != found["parameters"]:
        faults.append("the parameters at the end are others")
    return faults


def table(result):
    """The lines of one phase."""
    lines = [
        f"{result['phase']}: {result['status']}" + f": {result['reason']}" * bool(result["reason"])
    ]
    if result["method"]:
        lines.append(f"  {result['method']}")
    width = max((len(one["figure"]) for one in result["rows"]), default=0)
    for one in result["rows"]:
        value = "-" if one["value"] is None else one["value"]
        lines.append(
            f"  {one['figure']:<{width}} {value!s:>12} {one['unit']:<8}{told(one)}".rstrip()
        )
    return lines
