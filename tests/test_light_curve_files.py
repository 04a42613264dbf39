"""Every kind of light-curve file is read right or refused by name. The tests write the files, so they know them."""

import bz2
import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.table import Table
from astropy.time import Time

from microlens.config import CLASSES, ClassifyConfig, ReadConfig, SimulateConfig
from microlens.data.columns import known_names
from microlens.data.format import open_dataset
from microlens.data.lightcurve import CADENCE, MOST_EPOCHS, SPAN, LightCurve, seasons
from microlens.data.nights import read_epochs
from microlens.data.parquet import export_parquet
from microlens.data.readers import no_time, read_light_curve, read_light_curves
from microlens.data.simulation import simulate
from microlens.data.tables import LightCurveError, read_tables
from microlens.evaluate import light_curves
from microlens.evaluate.light_curves import classify, classify_curve
from microlens.lens import pspl
from microlens.network.runs import load_run

N = 400
RNG = np.random.default_rng(7)
T = np.round(2461450 + np.arange(N) / 96, 5)
FLUX = pspl(T, T[200], 0.3, 1.0)
MAG = np.round(19.5 - 2.5 * np.log10(FLUX) + 0.01 * RNG.normal(size=N), 4)
ERR = np.round(0.008 + 0.004 * RNG.random(N), 4)
RELATIVE = np.round(10 ** (-0.4 * (MAG - 19.5)), 6)
RELATIVE_ERR = np.round(RELATIVE * ERR / 1.0857, 6)
UJY = 10 ** (-0.4 * (MAG - 23.9))
UJY_ERR = UJY * ERR / 1.0857
CASES = Path(os.environ.get("MICROLENS_CASES", Path(__file__).parents[2] / "shared" / "cases"))


def lines(*columns, separator=" ", form="{}"):
    """Lines of columns; form : of one number."""
    words = [[form.format(x) if isinstance(x, float) else str(x) for x in column] for column in columns]
    return "\n".join(separator.join(row) for row in zip(*words, strict=True)) + "\n"


def other(n=N):
    """A column of numbers that are nobody's brightness."""
    return np.round(3000 + 50 * RNG.normal(size=n), 1)


PLAIN = lines(T, MAG, ERR)
CSV = lines(T, MAG, ERR, separator=",")
DELTA = np.round(1000 * (RELATIVE - RELATIVE[0]), 3)
IPAC_HEAD = '\\STAR_ID = "X"\n\\TIME_REFERENCE_FRAME = "HJD"\n'


def ipac(aligned):
    rows = [
        ("JD", "RELATIVE_MAGNITUDE", "MAGNITUDE_UNCERTAINTY"),
        ("double", "double", "double"),
        ("days", "mag", "mag"),
    ]
    head = IPAC_HEAD + "".join("|" + "|".join(w.rjust(22) for w in row) + "|\n" for row in rows)
    if aligned:
        return head + "".join(" " + " ".join(f"{x:22}" for x in row) + " \n" for row in zip(T, MAG, ERR, strict=True))
    return head + lines(T, MAG, ERR, form=" {}")


def vizier():
    head = "#RESOURCE=x\n#Column\tHJD\t(F13.5)\tdate\n#Column\tImag\t(F7.4)\tmagnitude\n"
    head += "HJD\tImag\te_Imag\nd\tmag\tmag\n-----\t----\t----\n"
    return head + lines(T, MAG, ERR, separator="\t")


def gulls():
    names = (
        "Simulation_time measured_relative_flux measured_relative_flux_error true_relative_flux "
        "true_relative_flux_error observatory_code saturation_flag best_single_lens_fit BJD"
    )
    zero = np.zeros(N, int)
    body = lines(T - T[0], RELATIVE, RELATIVE_ERR, np.round(FLUX, 6), RELATIVE_ERR, zero, zero, np.round(FLUX, 6), T)
    return f"#fs: 0.9 0.9 0.3\n#Event: 0.92 327 110\n{names}\n{body}"


def asassn():
    rows = ["HJD,UT Date,Camera,FWHM,Limit,mag,mag_err,flux(mJy),flux_err,Filter"]
    for t, m, e, f in zip(T, MAG, ERR, UJY / 1000, strict=True):
        rows.append(f"{t},2027-01-01.5,bd,1.5,21.0,{m},{e},{f:.6f},0.01,g")
        if len(rows) == 40:
            rows.append(f"{t + 0.001:.5f},2027-01-01.5,bd,1.5,16.2,>16.2,99.99,0.1,0.05,g")
    return "\n".join(rows)


def gaia():
    body = "".join(f"2027-01-01 00:00:00,{t},{m}\n" for t, m in zip(T, MAG, strict=True))
    last = "2027-03-01 00:00:00,2461500.5,untrusted\n2027-03-02 00:00:00,2461501.5,null\n"
    return f"Gaia27abc\nDate,JD(TCB),averagemag\n{body}{last}"


def atlas():
    head = "###MJD          m      dm   uJy   duJy F err chi/N   RA       Dec "
    head += "       x        y     maj  min   phi  apfit mag5sig Sky   Obs\n"
    rest = " 0 1.2 268.0 -29.2 5200.1 1000.2 2.5 2.4 30.0 -0.4 21.5 20.1 "
    rows = [
        f"{t - 2400000.5:.5f} {m} {e} {f:.5f} {d:.5f} c{rest}{i}a"
        for i, (t, m, e, f, d) in enumerate(zip(T, MAG, ERR, UJY, UJY_ERR, strict=True))
    ]
    return head + "\n".join(rows)


def ztf():
    head = "oid,expid,hjd,mjd,mag,magerr,catflags,filtercode,ra,dec,chi,sharp\n"
    return head + lines(["4512"] * N, range(N), T, T - 2400000.5, MAG, ERR, [0] * N, ["zr"] * N, [268.0001] * N,
                        [-29.2] * N, [1.0] * N, [0.1] * N, separator=",")


def pysis(header=True):
    head = "# HJD  \\Delta_flux flux_err  mag  mag_err  fwhm  sky  secz\n" if header else ""
    return head + lines(T, DELTA, RELATIVE_ERR * 1000, MAG, ERR, [5.7] * N, other(), [1.67] * N)


MAGNITUDES = {  # text whose brightness is MAG and ERR: (text, time system, what is subtracted from the time)
    "three_columns": (PLAIN, "JD-like (not stated)", 0),
    "ogle": (lines(T, MAG, ERR, [6.1] * N, other()), "HJD (OGLE)", 0),
    "pysis": (pysis(), "HJD", 0),
    "kmt_plain": ("# HJD mag mag_err\n" + PLAIN, "HJD", 0),
    "dc1": ("# BJD magnitude error\n" + PLAIN, "BJD", 0),
    "comment_of_three_in_five": (
        "# HJD I err\n# see fluxcal.txt for it\n" + lines(T, MAG, ERR, [6.1] * N, other()),
        "HJD",
        0,
    ),
    "comment_in_words": ("# magnitudes from DIA\n" + lines(T, MAG, ERR, [6.1] * N, other()), "HJD (OGLE)", 0),
    "comment_time_of_flux": ("# time of flux\n" + PLAIN, "JD-like (not stated)", 0),
    "ipac": (ipac(True), "HJD", 0),
    "ipac_not_aligned": (ipac(False), "HJD", 0),
    "vizier": (vizier(), "HJD", 0),
    "asassn": (asassn(), "HJD", 0),
    "ztf": (ztf(), "HJD", 0),
    "csv": ("BJD,mag,err\n" + CSV, "BJD", 0),
    "csv_quoted": ('"BJD_TDB","mag","mag_err"\n' + CSV, "BJD TDB", 0),
    "pandas_index": (",bjd,mag,mag_err\n" + lines(range(N), T, MAG, ERR, separator=","), "BJD", 0),
    "pandas_index_no_header": (lines(range(N), T, MAG, ERR, separator=","), "JD-like (not stated)", 0),
    "r_row_names": ("hjd mag err\n" + lines(range(1, N + 1), T, MAG, ERR), "HJD", 0),
    "semicolons": ("HJD;mag;err\n" + lines(T, MAG, ERR, separator=";"), "HJD", 0),
    "decimal_commas": ("HJD;mag;err\n" + lines(T, MAG, ERR, separator=";").replace(".", ","), "HJD", 0),
    "decimal_commas_and_spaces": (PLAIN.replace(".", ","), "JD-like (not stated)", 0),
    "d_exponents": ("# HJD mag err\n" + lines(T, MAG, ERR, form="{:.12E}").replace("E", "D"), "HJD", 0),
    "crlf": (PLAIN.replace("\n", "\r\n"), "JD-like (not stated)", 0),
    "other_order": ("err,mag,BJD\n" + lines(ERR, MAG, T, separator=","), "BJD", 0),
    "degrees_first": (
        "RA,Dec,HJD,mag,mag_err\n" + lines([268.1] * N, [-29.2] * N, T, MAG, ERR, separator=","),
        "HJD",
        0,
    ),
    "reduced_in_header": (
        "# HJD-2450000 mag err\n" + lines(np.round(T - 2450000, 5), MAG, ERR),
        "HJD - 2450000",
        2450000,
    ),
    "reduced_by_range": (
        "# HJD mag err\n" + lines(np.round(T - 2450000, 5), MAG, ERR),
        "HJD - 2450000 (by the range of its numbers)",
        2450000,
    ),
    "btjd": (
        "BTJD,mag,mag_err\n" + lines(np.round(T - 2457000, 5), MAG, ERR, separator=","),
        "BJD TDB - 2457000",
        2457000,
    ),
    "bkjd": (
        "BKJD,mag,mag_err\n" + lines(np.round(T - 2454833, 5), MAG, ERR, separator=","),
        "BJD TDB - 2454833",
        2454833,
    ),
    "mjd": ("MJD mag magerr\n" + lines(np.round(T - 2400000.5, 5), MAG, ERR), "MJD", 2400000.5),
    "offset_in_a_comment": (
        "# times are HJD - 2450000\n" + lines(np.round(T - 2450000, 5), MAG, ERR),
        "HJD - 2450000 (from a comment)",
        2450000,
    ),
    "prefixes": (
        "mjd,mag_auto,magerr_auto,mag_true\n" + lines(np.round(T - 2400000.5, 5), MAG, ERR, MAG + 1, separator=","),
        "MJD",
        2400000.5,
    ),
    "both_scales": (
        "HJD,mag,mag_err,flux,flux_err\n" + lines(T, MAG, ERR, RELATIVE, RELATIVE_ERR, separator=","),
        "HJD",
        0,
    ),
    "millimagnitudes": ("HJD,mag [mmag],mag_err [mmag]\n" + lines(T, MAG * 1000, ERR * 1000, separator=","), "HJD", 0),
}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", MAGNITUDES)
def test_text_with_magnitudes(kind, tmp_path):
    text, system, subtracted = MAGNITUDES[kind]
    curve = read_light_curve(write(tmp_path, f"{kind}.dat", text))
    assert curve.unit == "mag" and curve.time_system == system
    np.testing.assert_allclose(curve.time + subtracted, T, atol=2e-5, rtol=0)
    np.testing.assert_allclose(curve.value, MAG, atol=1e-6)
    np.testing.assert_allclose(curve.error, ERR, atol=1e-6)


def test_numbers_of_a_text_are_the_nearest_floats(tmp_path):
    written = np.random.default_rng(1).uniform(1, 3e6, (500, 3))
    text = "time,flux,error\n" + "".join(",".join(map(repr, map(float, row))) + "\n" for row in written)
    (table,) = read_tables(write(tmp_path, "a.csv", text))
    assert np.array_equal(np.column_stack([table[name] for name in table.colnames]), written)
    (table,) = read_tables(write(tmp_path, "b.dat", "time flux error\n1.5D+01 7 \u00b5\n2.5d-1 8 x\n"))
    assert list(table["time"]) == [15.0, 0.25] and list(table["error"]) == ["µ", "x"]
    assert table["flux"].dtype.kind == "i"


@pytest.mark.parametrize("names", [("501.1", "501.10"), ("007", "0007"), ("1e3", "10e2"), ("s001é", "s001è")])
@pytest.mark.parametrize("header", ["star,time,mag,error", "# star,time,mag,error"])
def test_the_names_of_stars_are_words(tmp_path, names, header):
    rows = [f"{name},{t:.5f},{mag:.4f},0.01" for name in names for t, mag in zip(T[:60], MAG[:60], strict=True)]
    path = write(tmp_path, "stars.csv", "\n".join([header, *rows]) + "\n")
    assert [(curve.star, len(curve.time)) for curve in read_light_curves(path)] == [(name, 60) for name in names]
    epochs = read_epochs([path], ReadConfig())
    assert list(epochs.names) == list(names) and len(epochs.time) == 120


def test_a_remark_in_any_letters_is_no_obstacle(tmp_path):
    text = "time,mag,error,remark\n" + lines(T, MAG, ERR, ["seeing 1 µm"] * N, separator=",")
    for encoding in ("utf-8", "latin-1", "utf-16"):
        curve = read_light_curve(write(tmp_path, f"{encoding}.csv", text.encode(encoding)))
        np.testing.assert_array_equal(curve.value, MAG)


def test_a_flux_of_zero_is_no_measurement(tmp_path):
    flux = UJY.copy()
    flux[::40] = 0.0
    path = write(tmp_path, "a.csv", "time,flux,error\n" + lines(T, flux, UJY_ERR, separator=","))
    curve = read_light_curve(path)
    assert len(curve.time) == N - 10 and "10 sentinels dropped" in curve.notes
    around_zero = np.where(np.arange(N) % 40, np.random.default_rng(0).normal(size=N), 0.0)
    faint = write(tmp_path, "b.csv", "time,flux,error\n" + lines(T, around_zero, np.ones(N), separator=","))
    assert len(read_light_curve(faint).time) == N  # where 0 is a flux like others


def test_each_star_that_cannot_be_read_is_named(tmp_path):
    rows = [("A", UJY), ("B", RNG.normal(size=N)), ("C", RNG.normal(size=N))]
    text = "".join(f"{star},{t:.5f},{f:.6f},1.0\n" for star, flux in rows for t, f in zip(T, flux, strict=True))
    (tmp_path / "x").mkdir()
    path = write(tmp_path / "x", "lc.csv", "star,time,flux,error\n" + text)
    made, error = light_curves.classify_file(str(path), ClassifyConfig(), load_run())
    assert {row["star"] for row in made} == {"A"}
    assert error.count("its baseline flux") == 2 and error.startswith(f"{path}, B: ") and f"{path}, C: " in error


def test_a_folder_of_parquet_files_is_all_of_them(tmp_path):
    for star in "ab":
        table = pa.table({"star": [star] * N, "time": T, "flux": UJY, "error": UJY_ERR})
        pq.write_table(table, tmp_path / f"{star}.parquet")
    assert {curve.star for curve in read_light_curves(tmp_path)} == {"a", "b"}
    assert len(read_epochs([tmp_path], ReadConfig()).time) == 2 * N
    pq.write_table(pa.table({"star": ["c"], "time": [1.0], "mag": [18.0]}), tmp_path / "c.parquet")
    with pytest.raises(LightCurveError, match=r"only one of a\.parquet and c\.parquet has error \(double\), flux"):
        read_light_curves(tmp_path)


def parquet(folder, name, **columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"time": T, "flux": UJY, "error": UJY_ERR} | columns), path)
    return path


def test_folders_named_after_stars_name_them(tmp_path):
    for star in ("007", "7"):
        parquet(tmp_path, f"star={star}/part-0.parquet")
    assert [curve.star for curve in read_light_curves(tmp_path)] == ["007", "7"]
    assert list(read_epochs([tmp_path], ReadConfig()).names) == ["007", "7"]


@pytest.mark.parametrize("other, message", [
    ({"star": ["007"] * N}, r"a\.parquet and b\.parquet has star \(int64\), star \(text\)"),
    ({"star": [8] * N, "time": T.astype(np.float32)}, r"has time \(double\), time \(float\)"),
    (None, r"b\.parquet: cannot be read; it is damaged"),
])
def test_a_folder_of_files_that_do_not_fit_is_refused(tmp_path, other, message):
    parquet(tmp_path, "a.parquet", star=[7] * N)
    parquet(tmp_path, "._a.parquet").write_bytes(b"of a file system, not a table")
    assert len(read_light_curves(tmp_path)) == 1
    if other:
        parquet(tmp_path, "b.parquet", **other)
    else:
        (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    for read in (read_light_curves, lambda path: read_epochs([path], ReadConfig())):
        with pytest.raises(LightCurveError, match=message):
            read(tmp_path)


def test_a_folder_of_one_file_a_star_without_their_names_is_refused(tmp_path):
    for name in "ab":
        parquet(tmp_path, f"{name}.parquet")
    with pytest.raises(LightCurveError, match="a folder of 2 Parquet files without a column that names the star"):
        read_light_curves(tmp_path)


def test_long_numbers_of_stars_stay_apart_beside_a_missing_one(tmp_path):
    ids = [6021030432034834433] * N + [6021030432034834435] * N + [None] * 25
    path = parquet(tmp_path, "a.parquet", star=pa.array(ids), time=[*T, *T, *T[:25]], flux=[*UJY, *UJY, *UJY[:25]],
                   error=np.ones(2 * N + 25))
    assert [curve.star for curve in read_light_curves(path)] == ["6021030432034834433", "6021030432034834435"]


def test_a_column_that_counts_rows_names_no_star(tmp_path):
    text = "id,time,mag,error\n" + lines(range(1, N + 1), T, MAG, ERR, separator=",")
    curve = read_light_curve(write(tmp_path, "a.csv", text))
    assert curve.star == "" and len(curve.time) == N


def test_a_name_that_stands_once_is_that_of_all_rows(tmp_path):
    text = "name,time,mag,error\n" + lines(["OB06", *[""] * (N - 1)], T, MAG, ERR, separator=",")
    curve = read_light_curve(write(tmp_path, "a.csv", text))
    assert curve.star == "OB06" and len(curve.time) == N


def test_real_times_are_no_sentinels():
    for real in (np.linspace(-1000, 6000, 600), np.linspace(0, 7300, 600), np.repeat([98.0, 99.0], 300),
                 np.repeat([9998.5, 9999.9], 300)):
        assert not no_time(real).any()
    found = no_time(np.array([2500.0, 9999.0, 2501.0, 0.0, -999.0, 2502.0]))
    assert list(np.flatnonzero(found)) == [1, 3, 4]


def test_a_catalogue_beside_the_light_curves_is_no_obstacle(tmp_path):
    parquet(tmp_path, "lightcurves.parquet", star=["a"] * N)
    pq.write_table(pa.table({"star": ["a"], "mag": [18.0]}), tmp_path / "sources.parquet")
    pq.write_table(pa.table({"image_id": [1], "time": [1.0]}), tmp_path / "visits.parquet")
    assert len(read_light_curve(tmp_path).time) == N
    parquet(tmp_path, "more.parquet", star=["b"] * N, error=pa.nulls(N))
    a, b = read_light_curves(tmp_path)
    assert (a.star, b.star) == ("a", "b") and any("no errors in the file" in note for note in b.notes)
    folder = tmp_path / "other"
    parquet(folder, "star=501/a.parquet", star=[501] * N)
    assert read_light_curve(folder).star == "501"


def test_dates_in_another_form_are_refused_with_one_of_them(tmp_path):
    text = "time,mag,error\n" + lines([f"2027-02-14.{k:04d}" for k in range(N)], MAG, ERR, separator=",")
    with pytest.raises(LightCurveError, match=r"its times, '2027-02-14\.0000' for example, are no dates in ISO form"):
        read_light_curve(write(tmp_path, "a.csv", text))


def test_numbers_of_stars_have_one_name_in_every_format(tmp_path):
    table = Table({"star": np.repeat([501.0, 502.0], N), "time": [*T, *T], "mag": [*MAG, *MAG], "error": [*ERR, *ERR]})
    table.write(tmp_path / "a.fits")
    table.write(tmp_path / "b.ecsv")
    pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), tmp_path / "c.parquet")
    table.write(tmp_path / "d.csv")
    for name in ("a.fits", "b.ecsv", "c.parquet", "d.csv"):
        curve = read_light_curve(tmp_path / name, ReadConfig(event="502"))
        assert (curve.star, len(curve.time)) == ("502", N)
        assert list(read_epochs([tmp_path / name], ReadConfig()).names) == ["501", "502"]


@pytest.mark.parametrize("path", ["a.csv", "a.parquet"])
def test_the_column_that_tells_stars_apart_names_them(tmp_path, path):
    columns = {"object": ["BLG512"] * 2 * N, "star": ["a"] * N + ["b"] * N, "time": [*T, *T], "mag": [*MAG, *MAG],
               "error": [*ERR, *ERR]}
    if path == "a.csv":
        write(tmp_path, path, ",".join(columns) + "\n" + lines(*columns.values(), separator=","))
    else:
        pq.write_table(pa.table(columns), tmp_path / path)
    assert [curve.star for curve in read_light_curves(tmp_path / path)] == ["a", "b"]


def test_a_missing_date_is_left_out(tmp_path):
    dates = Time(T, format="jd").isot
    known = [date if k not in (0, 100) else "" for k, date in enumerate(dates)]
    text = "time,mag,error\n" + lines(known, MAG, ERR, separator=",")
    with_zone = text.replace(",19", "+00:00,19")
    stamps = pa.array(Time(T, format="jd").datetime64.astype("M8[us]"), pa.timestamp("us", "UTC"))
    stamps = pa.array([None if k in (0, 100) else stamp for k, stamp in enumerate(stamps)], stamps.type)
    paths = [write(tmp_path, "a.csv", text), write(tmp_path, "b.csv", with_zone),
             parquet(tmp_path, "c.parquet", time=stamps)]
    for path in paths:
        curve = read_light_curve(path)
        assert "2 points with NaN or without a number dropped" in curve.notes
        np.testing.assert_allclose(curve.time, np.delete(T, [0, 100]), rtol=0, atol=2e-8)


def test_thousands_are_not_taken_for_decimals(tmp_path):
    flux = np.round(950 * FLUX / FLUX[0] - 30).astype(int)
    text = "time flux\n" + "".join(f"{t:.5f} {f:,}\n" for t, f in zip(T, flux, strict=True))
    with pytest.raises(LightCurveError, match=r"commas that may separate thousands or decimals \(1,\d+ beside 9\d\d\)"):
        read_light_curve(write(tmp_path, "a.dat", text))


def test_a_last_line_of_whole_numbers_does_not_hide_decimal_commas(tmp_path):
    text = "time;mag;error\n" + lines(T, MAG, ERR, separator=";").replace(".", ",") + "2461460;20;1\n"
    assert len(read_light_curve(write(tmp_path, "a.csv", text)).time) == N + 1


def test_headers_that_do_not_fit_are_refused(tmp_path):
    text = "star time flux error\n" + lines(["OGLE"] * N, [5] * N, T, RELATIVE, RELATIVE_ERR)
    with pytest.raises(LightCurveError, match=r"its header has 4 words \(star time flux error\), its lines 5 columns"):
        read_light_curve(write(tmp_path, "a.dat", text))
    text = "time,mag,error\n" + lines(T, MAG, ERR, separator=",")
    with pytest.raises(LightCurveError, match=r"its header is repeated in another order \(time error mag\)"):
        read_light_curve(write(tmp_path, "b.csv", text + text.replace("mag,error", "error,mag")))


def test_a_word_among_numeric_flags_marks_no_epoch(tmp_path):
    flags = ["NA" if k % 9 == 0 else "1" if k % 10 == 0 else "2" for k in range(N)]
    text = "time,mag,magerr,catflags\n" + lines(T, MAG, ERR, flags, separator=",")
    bits = known_names()["flags"]["catflags"]
    marked = sum(word.isdigit() and int(word) & bits != 0 for word in flags)
    curve = read_light_curve(write(tmp_path, "a.csv", text))
    assert len(curve.time) == N - marked


def test_tables_of_libraries_that_hold_more_than_a_light_curve(tmp_path):
    one = Table({"time": T, "mag": MAG, "error": ERR})
    sky = SkyCoord(np.full(N, 268.0), np.full(N, -29.0), unit="deg")
    Table({**one, "place": sky}).write(tmp_path / "a.ecsv")
    assert len(read_light_curve(tmp_path / "a.ecsv").time) == N
    both = votable.tree.VOTableFile()
    both.resources.append(votable.tree.Resource())
    for _ in range(2):
        both.resources[0].tables.append(votable.tree.TableElement.from_table(both, one))
    both.to_xml(str(tmp_path / "b.xml"))
    assert len(read_light_curves(tmp_path / "b.xml")) == 2
    units = Table({"time": T, "mag": MAG, "error": 1000 * ERR})
    units["error"].unit = "mmag"
    units.write(tmp_path / "c.tbl", format="ascii.ipac")
    np.testing.assert_allclose(read_light_curve(tmp_path / "c.tbl").error, ERR)


def test_arrays_of_another_length_are_named(tmp_path):
    time, flux, error = map(list, (T, UJY, UJY_ERR))
    rows = {"star": ["a", "b"], "time": [time, time], "flux": [flux, flux], "error": [error, error[:-1]]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(LightCurveError, match=f"in row 2 the column error has {N - 1} numbers and time {N}"):
        read_light_curves(tmp_path / "a.parquet")
    rows = {"star": ["a", "b"], "time": [None, time], "flux": [None, flux]}
    pq.write_table(pa.table(rows), tmp_path / "b.parquet")
    assert [curve.star for curve in read_light_curves(tmp_path / "b.parquet")] == ["b"]


def test_names_in_parquet_stay_whole_beside_a_missing_one(tmp_path):
    names = ["star 1"] * N + ["star 2"] * N + [None] * 30
    table = pa.table({"star": names, "time": [*T, *T, *T[:30]], "flux": [*UJY, *UJY, *UJY[:30]]})
    pq.write_table(table, tmp_path / "a.parquet")
    curves = read_light_curves(tmp_path / "a.parquet")
    assert {curve.star: len(curve.time) for curve in curves} == {"star 1": N, "star 2": N}
    assert "30 rows without a star's name left out" in curves[0].notes


def test_gaia_alerts_have_no_errors_and_say_so(tmp_path):
    curve = read_light_curve(write(tmp_path, "gaia.csv", gaia()))
    assert curve.time_system == "JD TCB" and len(curve.time) == N
    assert curve.error[0] == pytest.approx(0.01, rel=0.3) and any(
        "no errors in the file" in note for note in curve.notes
    )


FLUXES = {  # text whose brightness is a flux: (text, flux, error, zero point)
    "relative": (
        "BJD measured_relative_flux measured_relative_flux_error\n" + lines(T, RELATIVE, RELATIVE_ERR),
        RELATIVE,
        RELATIVE_ERR,
        None,
    ),
    "no_header": (lines(T, RELATIVE, RELATIVE_ERR), RELATIVE, RELATIVE_ERR, None),
    "gulls": (gulls(), RELATIVE, RELATIVE_ERR, None),
    "atlas": (atlas(), UJY, UJY_ERR, 23.9),
    "lightkurve": (
        "time,flux,flux_err,centroid_col,sap_flux,sap_flux_err,quality\n"
        + lines(
            T - 2457000,
            900 * RELATIVE,
            900 * RELATIVE_ERR,
            other(),
            850 * RELATIVE,
            850 * RELATIVE_ERR,
            [0] * N,
            separator=",",
        ),
        900 * RELATIVE,
        900 * RELATIVE_ERR,
        None,
    ),
    "millijansky": (
        "JD,flux [mJy],flux_err [mJy]\n" + lines(T, UJY / 1000, UJY_ERR / 1000, separator=","),
        UJY / 1000,
        UJY_ERR / 1000,
        16.4,
    ),
    "nanojansky": (
        "JD,flux [nJy],flux_err [uJy]\n" + lines(T, UJY * 1000, UJY_ERR, separator=","),
        UJY * 1000,
        UJY_ERR * 1000,
        31.4,
    ),
    "error_in_other_unit": (
        "JD,flux [mJy],flux_err [uJy]\n" + lines(T, UJY / 1000, UJY_ERR, separator=","),
        UJY / 1000,
        UJY_ERR / 1000,
        16.4,
    ),
}


@pytest.mark.parametrize("kind", FLUXES)
def test_text_with_fluxes(kind, tmp_path):
    text, flux, error, zero_point = FLUXES[kind]
    curve = read_light_curve(write(tmp_path, f"{kind}.csv", text))
    assert curve.unit == "flux" and curve.zero_point == zero_point
    np.testing.assert_allclose(curve.value, flux, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(curve.error, error, rtol=1e-3, atol=1e-5)
    if zero_point is not None:
        assert seasons(curve)[0].m_base == pytest.approx(19.5, abs=0.1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(encoding, tmp_path):
    text = "# magnitude ± error, time in HJD\n" + PLAIN
    curve = read_light_curve(write(tmp_path, "x.dat", text.encode(encoding)))
    np.testing.assert_allclose(curve.value, MAG)
    assert curve.time_system == "HJD (from a comment)"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_text(pack, tmp_path):
    np.testing.assert_allclose(read_light_curve(write(tmp_path, "x", pack(PLAIN.encode()))).value, MAG)


# ---- tables of libraries


def variables(path, rows=None):
    table = Table({"mag": MAG, "mag_error": ERR})
    second = Table({"mag": MAG + 1, "mag_error": ERR})
    if rows == "times":
        table["time"] = second["time"] = T
    hdus = [fits.PrimaryHDU(), *(fits.BinTableHDU(t, name=band) for t, band in ((table, "F146"), (second, "F087")))]
    fits.HDUList(hdus).writeto(path)
    return path


def test_variables_in_fits_with_times_beside(tmp_path):
    path = variables(tmp_path / "star.fits")
    with pytest.raises(LightCurveError, match="NumPy files beside"):
        read_light_curve(path)
    np.save(tmp_path / "times.npy", T)
    np.save(tmp_path / "other.npy", T[:50])
    curve = read_light_curve(path)
    assert curve.band == "F146" and "F087" in curve.notes[0]
    np.testing.assert_allclose(curve.time, T)
    np.testing.assert_allclose(read_light_curve(path, ReadConfig(band="F087")).value, MAG + 1)


def test_variables_in_fits_with_times_inside(tmp_path):
    np.testing.assert_allclose(read_light_curve(variables(tmp_path / "star.fits", "times")).time, T)


def test_variables_in_parquet(tmp_path):
    rows = {"name": ["A"] * N + ["B"] * N,
            "JD": [*T, *T],
            "mag": [*MAG, *(MAG + 1)],
            "mag_error": [*ERR, *ERR],
            "filter": ["F146"] * 2 * N}
    pq.write_table(pa.table(rows), tmp_path / "v.parquet")
    first, second = read_light_curves(tmp_path / "v.parquet")
    assert (first.star, second.star, first.band) == ("A", "B", "F146")
    np.testing.assert_allclose(second.value, MAG + 1)
    with pytest.raises(LightCurveError, match=r"v\.parquet: holds 2 light curves .*--event"):
        read_light_curve(tmp_path / "v.parquet")
    np.testing.assert_allclose(read_light_curve(tmp_path / "v.parquet", ReadConfig(event="B")).value, MAG + 1)


def test_tess_fits(tmp_path):
    quality = np.zeros(N, int)
    quality[7] = 128
    columns = [
        fits.Column("TIME", "D", "BJD - 2457000, days", array=T - 2457000),
        fits.Column("SAP_FLUX", "E", "e-/s", array=800 * RELATIVE),
        fits.Column("SAP_FLUX_ERR", "E", "e-/s", array=800 * RELATIVE_ERR),
        fits.Column("PDCSAP_FLUX", "E", "e-/s", array=np.where(np.arange(N) == 9, np.nan, 900 * RELATIVE)),
        fits.Column("PDCSAP_FLUX_ERR", "E", "e-/s", array=900 * RELATIVE_ERR),
        fits.Column("QUALITY", "J", array=quality),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")
    table.header.update({"BJDREFI": 2457000, "BJDREFF": 0.0, "TIMESYS": "TDB", "TIMEUNIT": "d"})
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(np.zeros((5, 5)), name="APERTURE")]).writeto(
        tmp_path / "lc.fits"
    )
    curve = read_light_curve(tmp_path / "lc.fits")
    assert curve.time_system == "BJD TDB - 2457000" and len(curve.time) == N - 2 and len(curve.notes) == 2
    np.testing.assert_allclose(curve.value, 900 * np.delete(RELATIVE, [7, 9]), rtol=1e-6)


@pytest.mark.parametrize("form", ["ascii.ecsv", "votable", "ascii.mrt"])
def test_other_forms_of_astropy(form, tmp_path):
    table = Table({"hjd": T, "mag": MAG, "e_mag": ERR})
    table.write(tmp_path / "x.table", format=form)
    curve = read_light_curve(tmp_path / "x.table")
    np.testing.assert_allclose(curve.value, MAG, atol=1e-4)
    assert curve.time_system == "HJD"


def test_seconds_in_a_header_become_days(tmp_path):
    seconds = np.round((T - T[0]) * 86400, 2)
    fits.BinTableHDU.from_columns(
        [
            fits.Column("TIME", "D", "s", array=seconds),
            fits.Column("MAG", "D", "mag", array=MAG),
            fits.Column("MAG_ERR", "D", "mag", array=ERR),
        ]
    ).writeto(tmp_path / "x.fits")
    for path in (
        tmp_path / "x.fits",
        write(tmp_path, "x.csv", "time [s],mag,err\n" + lines(seconds, MAG, ERR, separator=",")),
    ):
        np.testing.assert_allclose(read_light_curve(path).time, T - T[0], atol=1e-5)
    plain = write(tmp_path, "x.dat", lines(seconds, MAG, ERR))
    with pytest.raises(LightCurveError, match=r"not in days.*--time '1 \[s\]'"):
        read_light_curve(plain)
    np.testing.assert_allclose(read_light_curve(plain, ReadConfig(time="1 [s]")).time, T - T[0], atol=1e-5)


# ---- the data challenge of 2026


def beginner(path):
    """Two events in three bands, not in order of time."""
    order = RNG.permutation(N)
    parts = []
    for k, name in enumerate(("RMDC26_000001", "RMDC26_000002")):
        for band, shift, every in (("F146", 0, 1), ("F087", 2, 10), ("F213", -1, 10)):
            rows = order[np.isin(order, np.arange(0, N, every))]
            parts.append(pa.table({"name": [name] * len(rows),
                                   "l_deg": [0.5] * len(rows),
                                   "ra_deg": [268.0] * len(rows),
                                   "dec_deg": [-29.2] * len(rows),
                                   "filt": [band] * len(rows),
                                   "bjd": T[rows],
                                   "mag": MAG[rows] + k + shift,
                                   "mag_err": ERR[rows],
                                   "extinction": [1.2] * len(rows),
                                   "obs_x": [0.1] * len(rows),
                                   "saturation_flag": (rows == 200).astype(np.int8)}))
    pq.write_table(pa.concat_tables(parts), path)
    return path


def test_beginner(tmp_path):
    path = beginner(tmp_path / "beginner.parquet")
    curves = read_light_curves(path)
    assert [(c.star, c.band) for c in curves] == [("RMDC26_000001", "F146"), ("RMDC26_000002", "F146")]
    assert any("F087, F213" in note for note in curves[0].notes) and any(
        "1 epochs marked by saturation_flag" in n for n in curves[0].notes
    )
    np.testing.assert_allclose(curves[1].value, np.delete(MAG, 200) + 1)
    one = read_light_curve(path, ReadConfig(event="RMDC26_000002", band="F087"))
    np.testing.assert_allclose(one.value, (MAG[::10] + 3)[np.arange(40) != 20])
    assert one.time_system == "BJD"
    with pytest.raises(LightCurveError, match=r"beginner\.parquet: holds no event 'RMDC26_9'"):
        read_light_curve(path, ReadConfig(event="RMDC26_9"))
    with pytest.raises(LightCurveError, match=r"holds no band 'K'; it has F146, F087, F213"):
        read_light_curve(path, ReadConfig(event="RMDC26_000001", band="K"))


def test_experienced_has_negative_fluxes(tmp_path):
    faint = UJY[:200] / UJY[0] * 0.05 + 0.04 * RNG.normal(size=200)
    rows = {"name": ["RMDC26_000007"] * 200,
            "ra_deg": [268.0] * 200,
            "dec_deg": [-29.2] * 200,
            "filt": ["F146"] * 200,
            "bjd": T[:200],
            "flux_uJy": faint,
            "flux_err_uJy": [0.04] * 200,
            "saturation_flag": [False] * 200}
    pq.write_table(pa.table(rows), tmp_path / "e.parquet")
    curve = read_light_curve(tmp_path / "e.parquet")
    assert (faint < 0).any() and curve.zero_point == 23.9
    np.testing.assert_allclose(curve.value, faint)


def machine_learning(folder, n_events=50):
    """Tables obs, epoch (not in order of time) and meta."""
    order = RNG.permutation(N)
    epoch = {"epoch_id": np.arange(N),
             "bjd": T[order],
             "obs_x": np.zeros(N),
             "obs_y": np.zeros(N),
             "obs_z": np.zeros(N)}
    obs = [pa.table({"event_id": [100 + k] * N,
                     "epoch_id": np.arange(N),
                     "filt": ["F146"] * N,
                     "flux_uJy": UJY[order] * (k + 1),
                     "flux_err_uJy": UJY_ERR[order],
                     "true_flux_uJy": FLUX[order] * (k + 1),
                     "saturation_flag": [0] * N}) for k in range(n_events)]
    meta = {"event_id": [100 + k for k in range(n_events)],
            "name": [f"RMDC26_{k:06d}" for k in range(n_events)],
            "sim_label": ["RMDC26_1S1L_ML"] * n_events,
            "t0lens1": [T[200]] * n_events,
            "tE_ref": [1.0] * n_events}
    for name, table in (("obs", pa.concat_tables(obs)), ("epoch", pa.table(epoch)), ("meta", pa.table(meta))):
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "part-0.parquet", row_group_size=N)
    return folder


def test_machine_learning_tables(tmp_path):
    machine_learning(tmp_path)
    for path in (tmp_path, tmp_path / "obs", tmp_path / "obs" / "part-0.parquet"):
        for event in ("RMDC26_000017", "117"):
            curve = read_light_curve(path, ReadConfig(event=event))
            np.testing.assert_allclose(curve.time, T)
            np.testing.assert_allclose(curve.value, UJY * 18)
            assert curve.truth["sim_label"] == "RMDC26_1S1L_ML" and curve.truth["tE_ref"] == 1.0
    with pytest.raises(LightCurveError, match="no event 'RMDC26_999999'"):
        read_light_curve(tmp_path, ReadConfig(event="RMDC26_999999"))


def test_one_event_is_read_without_the_others(tmp_path, monkeypatch):
    machine_learning(tmp_path)
    monkeypatch.setattr("microlens.data.tables.MAX_ROWS", 1000)
    with pytest.raises(LightCurveError, match=r"20000 rows; say which event is meant with --event"):
        read_light_curves(tmp_path)
    assert len(read_light_curve(tmp_path, ReadConfig(event="103")).time) == N


def test_observations_without_their_epochs(tmp_path):
    machine_learning(tmp_path)
    (tmp_path / "epoch" / "part-0.parquet").unlink()
    with pytest.raises(LightCurveError, match="epoch_id but no times"):
        read_light_curve(tmp_path / "obs", ReadConfig(event="103"))


def test_one_row_a_star_with_arrays(tmp_path):
    rows = {"name": ["A", "B"],
            "bjd": [list(T), list(T)],
            "mag": [list(MAG), list(MAG + 1)],
            "mag_err": [list(ERR), list(ERR)]}
    pq.write_table(pa.table(rows), tmp_path / "v.parquet")
    first, second = read_light_curves(tmp_path / "v.parquet")
    np.testing.assert_allclose(first.value, MAG)
    np.testing.assert_allclose(second.value, MAG + 1)


# ---- several bands, telescopes, stars


def test_telescopes_of_gulls_are_never_mixed(tmp_path):
    text = gulls().splitlines()
    for i in range(4, len(text)):
        words = text[i].split()
        words[5] = str(i % 3)
        text[i] = " ".join(words)
    path = write(tmp_path, "x.det.lc", "\n".join(text))
    assert sorted(c.band for c in read_light_curves(path)) == ["0", "1", "2"]
    assert len(read_light_curve(path, ReadConfig(band="1")).time) in (133, 134)


def test_two_bands_side_by_side_are_two_readings(tmp_path):
    path = write(tmp_path, "x.csv", "HJD,I,I_err,V,V_err\n" + lines(T, MAG, ERR, MAG + 2, ERR, separator=","))
    with pytest.raises(
        LightCurveError,
        match=r"x\.csv: the brightness may be I or V\. Columns: HJD, I, I_err, V, V_err\. Say .*--value",
    ):
        read_light_curve(path)
    curve = read_light_curve(path, ReadConfig(value="V"))
    np.testing.assert_allclose(curve.value, MAG + 2)
    same = write(tmp_path, "y.dat", lines(T, MAG, ERR, MAG + 2, ERR))
    with pytest.raises(LightCurveError, match="the brightness may be column 2 or 4"):
        read_light_curve(same)
    np.testing.assert_allclose(read_light_curve(same, ReadConfig(value="4")).value, MAG + 2)


def test_mixed_stars_without_a_column_that_tells_them_apart(tmp_path):
    both = lines(np.repeat(T, 2), np.stack([MAG, MAG + 1], 1).ravel(), np.repeat(ERR, 2))
    with pytest.raises(LightCurveError, match="two different values, so several stars or bands are mixed"):
        read_light_curve(write(tmp_path, "x.dat", both))
    with pytest.raises(LightCurveError, match="its times start over"):
        read_light_curve(write(tmp_path, "y.dat", PLAIN + lines(T + 0.003, MAG + 3, ERR)))


def test_own_names_of_columns(tmp_path, monkeypatch):
    path = write(tmp_path, "x.csv", "when,l4_brightness,l4_sd\n" + CSV)
    with pytest.raises(LightCurveError, match=r"Columns: when, l4_brightness, l4_sd"):
        read_light_curve(path)
    own = write(
        tmp_path,
        "own.yaml",
        "time: {when: BJD TDB}\nbrightness: [{names: [l4_brightness], unit: mag, kind: mag}]\nplain_error: [l4_sd]\n",
    )
    monkeypatch.setenv("MICROLENS_COLUMNS", str(own))
    curve = read_light_curve(path)
    assert curve.time_system == "BJD TDB"
    np.testing.assert_allclose(curve.error, ERR)
    monkeypatch.setenv("MICROLENS_COLUMNS", str(write(tmp_path, "bad.yaml", "times: [when]\n")))
    with pytest.raises(LightCurveError, match=r"bad\.yaml: is no table of column names \(unknown entries times"):
        read_light_curve(path)


# ---- numbers that are no measurements


@pytest.mark.parametrize(
    "value, error",
    [
        ("99.99", "0.01"),
        ("99.999", "99.999"),
        ("-999", "-999"),
        ("9.9e9", "9.9e9"),
        ("0.0", "0.01"),
        ("nan", "nan"),
        ("19.5", "9.999"),
        ("19.5", "0"),
        (">18.2", "99.99"),
        ("null", "null"),
        ("-1", "-1"),
    ],
)
def test_a_value_that_is_none_is_dropped_with_a_note(value, error, tmp_path):
    words = [row.split() for row in PLAIN.splitlines()]
    words[50][1:], words[300][1:] = [value, error], [value, error]
    curve = read_light_curve(write(tmp_path, "x.dat", "\n".join(map(" ".join, words))))
    np.testing.assert_allclose(curve.value, np.delete(MAG, [50, 300]))
    assert curve.unit == "mag" and len(curve.notes) == 1 and "2 " in curve.notes[0] and "dropped" in curve.notes[0]


@pytest.mark.parametrize("value", ["-999", "99.999", "9.9e9", "-99.99", "1e30"])
def test_sentinels_among_fluxes(value, tmp_path):
    words = [row.split() for row in lines(T, RELATIVE, RELATIVE_ERR).splitlines()]
    words[50][1] = value
    curve = read_light_curve(write(tmp_path, "x.dat", "# BJD flux flux_err\n" + "\n".join(map(" ".join, words))))
    np.testing.assert_allclose(curve.value, np.delete(RELATIVE, 50))


def test_a_flux_that_passes_999_is_no_sentinel(tmp_path):
    flux = np.round(200 + 800 * np.exp(-0.5 * ((T - T[200]) / 0.5) ** 2), 2)
    flux[np.argmin(np.abs(flux - 999))] = 999.0
    curve = read_light_curve(write(tmp_path, "x.dat", "# BJD flux flux_err\n" + lines(T, flux, [1.0] * N)))
    assert 999.0 in curve.value and len(curve.time) == N


def test_an_error_far_below_the_others_is_raised(tmp_path):
    error = ERR.copy()
    error[30] = 1e-6
    curve = read_light_curve(write(tmp_path, "x.dat", lines(T, MAG, error, form="{:.7f}")))
    assert curve.error[30] > 0.05 * np.median(ERR) and np.allclose(np.delete(curve.error, 30), np.delete(ERR, 30))
    assert "1 errors far below" in curve.notes[0]


@pytest.mark.parametrize(
    "name, text",
    [
        ("named", "# HJD Delta_flux flux_err\n" + lines(T, 500 + DELTA, RELATIVE_ERR * 1000)),
        ("moa", lines(T, 100 * RNG.normal(size=N), [100.0] * N)),
        ("moa_negative", "# JD flux err\n" + lines(T, DELTA - 300, RELATIVE_ERR * 1000)),
    ],
)
def test_difference_fluxes_are_refused_by_name(name, text, tmp_path):
    with pytest.raises(LightCurveError, match=r"(?s)moa|named.*(difference flux|baseline flux).*--value"):
        seasons(read_light_curve(write(tmp_path, f"{name}.dat", text)))


@pytest.mark.parametrize("values", [np.full(600, 16.0), np.round(16 + 0.004 * RNG.normal(size=600), 2)])
def test_a_constant_or_quantised_curve_keeps_its_errors(values, tmp_path):
    t = 2461000 + np.arange(600) / 96
    (season,) = seasons(read_light_curve(write(tmp_path, "x.dat", lines(t, values, [0.01] * 600))))
    assert np.median(season.flux_err) == pytest.approx(0.01 / 1.0857, rel=0.01)
    assert np.std(season.flux) == pytest.approx(np.hypot(0.01, np.std(values)) / 1.0857, rel=0.1)
    assert season.note == "rounded numbers: noise of the size of the errors added"


def test_a_column_of_flux_is_not_taken_for_magnitudes_because_it_is_near_20(tmp_path):
    path = write(tmp_path, "x.dat", lines(T, 12 * np.minimum(RELATIVE, 2.4), [0.05] * N))
    with pytest.raises(LightCurveError, match=r"--value '\[mag\]' or --value '\[flux\]'"):
        read_light_curve(path)
    assert read_light_curve(path, ReadConfig(value="[flux]")).unit == "flux"
    assert read_light_curve(path, ReadConfig(value="2 [mag]")).unit == "mag"
    with pytest.raises(LightCurveError, match=r"the unit \[parsec\] is unknown; expected mag, mmag"):
        read_light_curve(path, ReadConfig(value="[parsec]"))


# ---- refusals


def calendar(hours):
    dates = [f"2027-{1 + i // 672:02d}-{1 + i // 24 % 28:02d}" + (f"T{i % 24:02d}:00:00" if hours else "")
             for i in range(N)]
    return "date,mag,mag_err\n" + lines(dates, MAG, ERR, separator=",")


def test_calendar_dates(tmp_path):
    curve = read_light_curve(write(tmp_path, "x.csv", calendar(True)))
    assert curve.time_system == "JD UTC (from dates)" and curve.time[1] - curve.time[0] == pytest.approx(1 / 24)
    with pytest.raises(LightCurveError, match="dates without the time of day"):
        read_light_curve(write(tmp_path, "y.csv", calendar(False)))


REFUSED = {"empty": (b"", "is empty"),
           "blank": (b"\n \n", "is empty"),
           "garbage": (bytes(range(256)) * 40, "binary file"),
           "html": (b"<!DOCTYPE html>\n<html><body>not found</body></html>", "web page"),
           "png": (b"\x89PNG\r\n\x1a\n" + bytes(500), "PNG image"),
           "pdf": (b"%PDF-1.7\n" + bytes(500), "PDF"),
           "zip": (b"PK\x03\x04" + bytes(500), "unpack it first"),
           "gzip": (gzip.compress(PLAIN.encode())[:800], "damaged or cut short"),
           "fits_cut": (b"SIMPLE  =                    T" + b" " * 2000, "cannot be read|without a table"),
           "parquet_cut": (b"PAR1" + bytes(200), "damaged"),
           "prose": (b"a story\nof words\n" * 30, "no lines of numbers"),
           "comments": (b"# only\n# comments\n" * 30, "no data lines"),
           "few": ("\n".join(PLAIN.splitlines()[:5]), "5 usable points"),
           "one_column": (lines(T), "no lines of numbers|one column"),
           "degrees": (lines([268.1] * N, [-29.2] * N, T, MAG, ERR), "column 1 does not change.*--time"),
           "degrees_named": ("ra,dec,mag,mag_err\n" + lines([268.1] * N, [-29.2] * N, MAG, ERR, separator=","),
                             "no column is known to hold times"),
           "wandering_degrees": (lines(268 + 1e-4 * RNG.normal(size=N), -29 + 1e-4 * RNG.normal(size=N), T, MAG, ERR),
                                 "order of time|not errors"),
           "two_apertures": ("mjd,mag_psf,magerr_psf,mag_ap\n" + lines(T, MAG, ERR, MAG, separator=","),
                             "the brightness may be mag_psf or mag_ap"),
           "zero_point_alone": ("hjd,magzp,magerr\n" + lines(T, MAG, ERR, separator=","),
                                "no column is known to hold a magnitude"),
           "percent": ("BJD,flux,flux_err_percent\n" + lines(T, RELATIVE, ERR, separator=","),
                       "the error of flux may be flux_err_percent.*--error"),
           "error_of_another": ("HJD,mag,flux,flux_err\n" + lines(T, MAG, RELATIVE, RELATIVE_ERR, separator=","),
                                "the error of mag may be flux_err"),
           "no_brightness": ("hjd,airmass,sky\n" + lines(T, other(), other(), separator=","),
                             "no column is known to hold a magnitude"),
           "long_header": ("HJD UT Date mag err\n" + PLAIN, "header has 5 words"),
           "wrong_name": ("HJD mag err\n" + lines(T, 1000 * RELATIVE, RELATIVE_ERR),
                          "are no magnitudes.*--value .\\[flux"),
           "two_times": (lines(T, T + 0.001, MAG, ERR), "may be times"),
           "all_nan": (lines(T, ["nan"] * N, ERR), "usable points"),
           "one_time": (lines([2461000.5] * N, MAG, ERR), "does not change")}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_is_one_line_with_name_and_cause(kind, tmp_path):
    content, message = REFUSED[kind]
    with pytest.raises(LightCurveError, match=message) as caught:
        read_light_curves(write(tmp_path, f"{kind}.dat", content))
    assert f"{kind}.dat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, form", [("x.fits", "fits"), ("x.ecsv", "ascii.ecsv"), ("x.vot", "votable"),
                                        ("x.parquet", None)])
def test_a_table_without_rows_is_refused_in_one_line(tmp_path, name, form):
    path, table = tmp_path / name, Table({"time": [1.0], "mag": [20.0], "mag_err": [0.01]})[:0]
    if form is None:
        pq.write_table(pa.Table.from_pandas(table.to_pandas()), path)
    else:
        table.write(path, format=form)
    for read in (read_light_curves, lambda file: read_epochs([file], ReadConfig())):
        with pytest.raises(LightCurveError) as caught:
            read(path)
        assert str(caught.value).count(name) == 1 and "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(LightCurveError, match="is a folder"):
        read_light_curves(tmp_path)
    with pytest.raises(LightCurveError, match="no such file"):
        read_light_curves(tmp_path / "gone.dat")


# ---- long and fast curves


def curve_of(t, sigma=0.01):
    flux = pspl(t, t[len(t) // 2], 0.2, 3.0) + sigma * np.random.default_rng(1).normal(size=len(t))
    return LightCurve("x", t, flux, np.full(len(t), sigma), "flux", "BJD")


@pytest.mark.parametrize(
    "t, n, long, sparse",
    [
        (np.arange(65_000) / 48, 19, True, False),  # Kepler, stitched
        (np.arange(1461.0), 1, False, True),  # nightly for four years
        (np.arange(49_000) / 96, 8, True, False),
        (np.concatenate([np.arange(3000) / 48 + start for start in (0, 180, 360)]), 3, False, False),
    ],
)
def test_long_curves_are_cut_to_what_the_network_knows(t, n, long, sparse):
    made = seasons(curve_of(t))
    assert len(made) == n and all(s.long == long and s.sparse == sparse for s in made)
    assert sum(len(s.flux) for s in made) == len(t) and max(len(s.flux) for s in made) <= MOST_EPOCHS
    assert sparse or max(s.time[-1] - s.time[0] for s in made) <= SPAN
    assert [s.number for s in made] == list(range(1, n + 1))


def test_a_fast_curve_is_averaged_to_roman_s_cadence():
    (season,) = seasons(curve_of(np.arange(19_440) / 720))  # TESS: 27 d of two minutes
    assert np.median(season.delta_t[1:]) == pytest.approx(CADENCE, rel=0.1) and "averaged" in season.note
    assert np.median(season.flux_err) == pytest.approx(0.01 / np.sqrt(CADENCE * 720), rel=0.1)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}")
def test_cases():
    refused = {"pspl_25_seconds", "pspl_29_iso"}
    for path in sorted(CASES.glob("*.gz")):
        if path.name.split(".")[0] in refused:
            with pytest.raises(LightCurveError, match=r"--time|dates"):
                read_light_curves(path)
        else:
            assert all(seasons(curve) for curve in read_light_curves(path)), path


# ---- out and back


def test_a_dataset_as_parquet_reads_back_to_the_same_numbers(tmp_path):
    output = str(tmp_path / "x.h5")
    path = simulate(SimulateConfig(n_flat=2, n_pspl=2, n_binary=2, n_other=2, output=output, num_workers=1),
                    progress=False)
    obs, epoch, meta = export_parquet(path, tmp_path / "out")
    assert pq.read_schema(obs).names == ["event_id", "epoch_id", "filt", "flux_uJy", "flux_err_uJy", "true_flux_uJy",
                                         "saturation_flag"]
    assert {"bjd", "obs_x"} < set(pq.read_schema(epoch).names) and {"t0lens1", "u0lens1", "Planet_q"} < set(
        pq.read_schema(meta).names
    )
    true_flux = pq.read_table(obs).to_pandas().groupby("event_id")["true_flux_uJy"]
    with open_dataset(path) as data:
        for row in range(len(data)):
            curve = read_light_curve(obs, ReadConfig(event=f"microlens_{row:06d}"))
            flux, sigma = data.flux(row).astype(float), data.sigma(row)
            seen = np.flatnonzero(flux)
            base = 10 ** (-0.4 * (float(data.m_base[row]) - 23.9))
            np.testing.assert_allclose(curve.value / base, flux[seen], rtol=1e-12)
            np.testing.assert_allclose(curve.error / base, sigma[seen], rtol=1e-6)
            np.testing.assert_allclose(np.diff(curve.time), np.diff(data.timestamps[seen]), atol=1e-8)
            assert curve.truth["label_observable"] == CLASSES[data.labels_observable[row]]
            difference = np.abs(true_flux.get_group(row) - curve.value)
            assert np.median(difference / curve.error) == pytest.approx(0.67, abs=0.1)
        table = pq.read_table(meta).to_pandas()
        of_other = table["sim_label"] == "microlens_other"
        assert np.array_equal(of_other, data.labels == 3)
        assert table["subclass"].tolist() == data.params["subclass"].tolist() and (table["subclass"] != "").sum() == 2


# ---- classes of files


@pytest.fixture(scope="module")
def run():
    return load_run("baseline")


def season_lines(kind, start=0.0, n=3000, m_base=20.0):
    rng, t = np.random.default_rng(5), np.arange(n) / 96
    flux = pspl(t, t[n // 2], 0.2, 3.0) if kind == "pspl" else np.ones(n)
    sigma = 0.006
    return lines(
        np.round(2461450 + start + t, 5),
        np.round(m_base - 2.5 * np.log10(flux + sigma * rng.normal(size=n)), 5),
        [sigma * 1.0857] * n,
    )


def test_each_file_has_its_lines_whatever_the_others_are(tmp_path, run):
    good = write(tmp_path, "pspl.dat", season_lines("pspl"))
    bad = write(tmp_path, "bad.dat", b"\x89PNG\r\n\x1a\n" + bytes(99))
    table, errors = classify([good, bad, tmp_path / "gone.dat", good], ClassifyConfig(), run)
    assert table["class"].tolist() == ["pspl", "pspl"] and table["file"].tolist() == [str(good)] * 2
    assert ["bad.dat" in errors[0], "gone.dat" in errors[1], len(errors)] == [True, True, 2]


def test_a_fault_of_the_package_is_one_line_too(tmp_path, run, monkeypatch):
    path = write(tmp_path, "x.dat", PLAIN)
    monkeypatch.setattr("microlens.evaluate.light_curves.seasons", lambda *_: 1 / 0)
    table, errors = classify([path], ClassifyConfig(), run)
    assert table.empty and len(errors) == 1 and "x.dat" in errors[0] and "ZeroDivisionError" in errors[0]


def test_an_interruption_keeps_what_is_done(tmp_path, run, monkeypatch):
    files = [write(tmp_path, f"{i}.dat", season_lines("flat", n=300)) for i in range(3)]
    ask = light_curves.classify_file

    def interrupted(file, *rest):
        if file.endswith("1.dat"):
            raise KeyboardInterrupt
        return ask(file, *rest)

    monkeypatch.setattr(light_curves, "classify_file", interrupted)
    table, errors = classify(files, ClassifyConfig(), run)
    assert len(table) == 1 and errors == ["interrupted: 2 of 3 files were not classified."]


def test_two_workers_give_the_same_answers_in_the_same_order(tmp_path, run):
    files = [
        write(tmp_path, "a.dat", season_lines("pspl")),
        write(tmp_path, "b.dat", "no numbers\n"),
        write(tmp_path, "c.dat", season_lines("flat")),
    ]
    one, errors = classify(files, ClassifyConfig(), run)
    two, same_errors = classify(files, ClassifyConfig(experiment_name="baseline", num_workers=2))
    assert errors == same_errors and one["file"].tolist() == two["file"].tolist()
    np.testing.assert_allclose(one[light_curves.PROBABILITIES[:3]], two[light_curves.PROBABILITIES[:3]], atol=1e-5)


def test_many_seasons_have_a_line_of_the_whole(tmp_path, run):
    """Ten seasons as those of the data challenge of 2026: six dense, four sparse; the event is in the third."""
    sparse = np.round(2461450 + 900 + np.arange(780) % 195 / 3 + np.arange(780) // 195 * 180, 5)
    rng = np.random.default_rng(8)
    dense = [season_lines("pspl" if k == 2 else "flat", start=180.0 * k) for k in range(5)]
    text = ("".join(dense) + lines(sparse, np.round(20 + 0.0065 * rng.normal(size=780), 5), [0.0065] * 780)
            + season_lines("flat", start=1800.0))
    curve = read_light_curve(write(tmp_path, "x.dat", text))
    rows = classify_curve(curve, run)
    assert [r["season"] for r in rows] == [*range(1, 11), "all"]
    assert [r["class"] for r in rows] == ["flat", "flat", "pspl", *["flat"] * 7, "pspl"]
    assert [("sparse" in r["flags"]) for r in rows[:10]] == [False] * 5 + [True] * 4 + [False]
    assert rows[-1]["event_season"] == 3 and rows[-1]["n_points"] == len(curve.time)
    assert rows[-1]["brightest"] == rows[2]["brightest"] and rows[-1]["m_base"] == pytest.approx(20.0, abs=0.002)


def test_the_folder_s_scores_are_the_answers_of_classify(tmp_path, run):
    write(tmp_path, "a.dat", season_lines("pspl") + season_lines("flat", start=200.0))
    truth = write(tmp_path, "truth.csv", "set,file,unit,class_by_season\nx,a.dat,mag,pspl|flat\n")
    scored, mistakes, errors = light_curves.score_folder(tmp_path, truth, run)
    table, _ = classify([tmp_path / "a.dat"], ClassifyConfig(value="[mag]"), run)
    assert mistakes.empty and not errors and scored["truth"].tolist() == ["pspl", "flat"]
    for column in ("class", "flags", "season", *light_curves.PROBABILITIES[:3]):
        assert scored[column].tolist() == table[column].tolist()[:2]


@pytest.mark.parametrize("t", [np.arange(2000.0) * 1.01, np.arange(1461.0), np.arange(30_000) / 48,
                               np.arange(500) * 7.0])
def test_no_cadence_takes_for_ever(t, run):
    assert all(r["class"] for r in classify_curve(curve_of(t), run))
