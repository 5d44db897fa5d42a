"""What pylinac finds in images: run by the interpreter of its own environment, never imported by a test.

Reads a JSON object on standard input, tests by name with the paths of their images, and writes what was found as
a JSON object on standard output. Millimetres in the isocentre plane throughout.
"""

from __future__ import annotations

import json
import sys
import warnings

import matplotlib

matplotlib.use("Agg")

from pylinac import DRGS, DRMLC, FieldAnalysis, PicketFence, WinstonLutz


def winston_lutz(paths: list[str]) -> dict:
    analysis = WinstonLutz(paths)
    analysis.analyze(bb_size_mm=8)
    ball, shift = analysis.bb.measured_bb_position, analysis.bb_shift_vector
    return {
        "ball": [ball.x, ball.y, ball.z],
        "shift": [shift.x, shift.y, shift.z],
        # x to the right; y as the rows go, downwards.
        "images": {
            f"G{image.gantry_angle:.0f}C{image.collimator_angle:.0f}T{image.couch_angle:.0f}": {
                "vector": [image.cax2bb_vector.x, image.cax2bb_vector.y],
                "distance": image.cax2bb_distance,
            }
            for image in analysis.images
        },
    }


def picket_fence(paths: list[str]) -> dict:
    (path,) = paths
    analysis = PicketFence(path)
    # An even number of pixels: with an odd one pylinac cuts its windows at whole pixels and counts positions from
    # halves, so that all strips are half a pixel off. 15 mm are 68.75 pixels here.
    analysis.analyze(tolerance=0.2, picket_spacing=68)
    found = analysis.results_data()
    return {
        "worst leaf": int(found.max_error_leaf),
        "spacing": found.mean_picket_spacing_mm,
        "offsets": found.offsets_from_cax_mm,
        "errors": {leaf: sum(errors) / len(errors) for leaf, errors in found.mlc_errors_by_leaf.items()},
        "failed": [int(leaf) for leaf in found.failed_leaves],
    }


def field_analysis(paths: list[str]) -> dict:
    (path,) = paths
    analysis = FieldAnalysis(path)
    analysis.analyze()
    found = analysis.results_data()
    return {
        "size": [found.field_size_horizontal_mm, found.field_size_vertical_mm],
        "centre": [
            (found.cax_to_right_mm - found.cax_to_left_mm) / 2,
            (found.cax_to_top_mm - found.cax_to_bottom_mm) / 2,
        ],
    }


def _vmat(kind: type[DRGS | DRMLC], paths: list[str]) -> dict:
    analysis = kind(paths)
    analysis.analyze()
    found = analysis.results_data()
    return {
        "open": str(analysis.open_image.path),
        "positions": [strip.x_position_mm for strip in found.segment_data],
        "deviations": [strip.r_dev for strip in found.segment_data],
        "spread": [strip.stdev * 100.0 / strip.r_corr * 100.0 for strip in found.segment_data],
    }


def dose_rate_gantry_speed(paths: list[str]) -> dict:
    return _vmat(DRGS, paths)


def dose_rate_leaf_speed(paths: list[str]) -> dict:
    return _vmat(DRMLC, paths)


ANALYSES = {
    "winston-lutz": winston_lutz,
    "picket-fence": picket_fence,
    "open-field": field_analysis,
    "dose-rate-gantry-speed": dose_rate_gantry_speed,
    "dose-rate-leaf-speed": dose_rate_leaf_speed,
}


def main() -> None:
    warnings.simplefilter("ignore")
    wanted = json.load(sys.stdin)
    json.dump({name: ANALYSES[each["exercise"]](each["paths"]) for name, each in wanted.items()}, sys.stdout)


if __name__ == "__main__":
    main()
