"""Values that want to be paths, and values that contradict each other."""

from __future__ import annotations

from typing import Final

from robustness.attack_receivers import PLAIN
from robustness.attack_stage import Attack, Stage, new_uid
from support import lying_pdus as wire
from support.attacker import Answer

from airflow_provider_varian import uids

#: SOP Instance UIDs that are none.
_NO_UIDS: Final[tuple[bytes, ...]] = (
    b"../../../outside.dcm",
    b"..",
    b".",
    b"../",
    b"/tmp/zqplanted",
    b"//server/zqplanted",
    b"\\\\server\\zqplanted",
    b"C:\\zqplanted",
    b"..\\..\\zqplanted",
    b"1.2.3/../../../zqplanted",
    b"1.2\x003",
    b"1.2.3\x00/../../zqplanted",
    b"\x00",
    b"1.2.3\n4",
    b"1.2.3\r\nERROR zqplanted",
    b"\x1b]0;zqplanted\x07",
    b"lock",
    b"tmp",
    b"new",
    b"claimed",
    b"CON",
    b"NUL.dcm",
    b"-rf",
    b"~root",
    b"$(zqplanted)",
    b"%2e%2e%2fzqplanted",
    b"1..2",
    b".1.2",
    b"1.2.",
    b"1.2.3.dcm",
    b"1.2.-3",
    b"1.2.0x3",
    b"1 2",
    "1\u20242\u20243".encode(),
    "\uff0e\uff0e/zqplanted".encode(),
    "\u0661.\u0662.\u0663".encode(),
    "1.2.\u00b2".encode("latin-1"),
    b"\xff\xfe1.2.3",
    b"*",
    b"1.2.*",
)
_TOO_LONG: Final[tuple[bytes, ...]] = (
    b"1." * 32 + b"1",
    b"9" * 65,
    b"1" * 128,
    b"1.2." + b"3" * 4000,
    b"../" * 300 + b"zqplanted",
)
#: Odd ones that are let through: leading zeros (ARIA writes them, quirk of varian-daemon 1.5), and the longest.
_ODD_UIDS: Final = (f"{0:03d}1.002.03.77.", f"1.{'2' * 50}.")

_PATIENT_IDS: Final[tuple[bytes, ...]] = (
    b"../../../../zqplanted",
    b"/tmp/zqplanted",
    b"ZQPLANTEDID77/../..",
    b"..\\zqplanted",
    b"zq\x00planted",
    b"zqplanted\n",
    b"Z" * 5000,
    b"",
)


def no_uids(stage: Stage) -> None:
    _refused(stage, _NO_UIDS)
    for value in _NO_UIDS[:6]:
        with stage.associated() as peer:
            peer.send(*wire.message(wire.IMAGE_CONTEXT, wire.store_command(value), bytes(20_000))[:2])
            peer.abort()


def too_long(stage: Stage) -> None:
    _refused(stage, _TOO_LONG)


def _refused(stage: Stage, values: tuple[bytes, ...]) -> None:
    with stage.associated() as peer:
        for number, value in enumerate(values, 1):
            stage.occasions += 1
            command = wire.store_command(value, message=number)
            peer.send(*wire.message(wire.IMAGE_CONTEXT, command, wire.data_set(value)))
            try:
                assert peer.answer() == Answer(0x8001, number, 0xC000)
            except Exception as error:
                error.add_note(f"SOP Instance UID {value!r}")
                raise
        peer.release()


def odd_uids(stage: Stage) -> None:
    with stage.associated() as peer:
        for odd in _ODD_UIDS:
            uid = (odd + new_uid().rpartition(".")[2])[:64]
            peer.send(*wire.store_message(uid))
            assert peer.answer().status == 0
            stage.receiver.acknowledged[uid] = wire.data_set(uid)
        peer.release()


def differing_uids(stage: Stage) -> None:
    here, there = new_uid(), new_uid()
    other_class = wire.data_set(here, sop_class=uids.RT_DOSE)
    without = wire.element(0x00100020, b"ZQPLANTEDID77") + wire.element(0x7FE00010, bytes(100))
    longer = wire.data_set(here + ".1")
    with stage.associated() as peer:
        for data in (wire.data_set(there), wire.data_set("../../x"), wire.data_set(""), longer, other_class, without):
            peer.send(*wire.message(wire.IMAGE_CONTEXT, wire.store_command(here), data))
            assert peer.answer().status == 0xA900
        peer.release()


def hostile_patient_ids(stage: Stage) -> None:
    with stage.associated() as peer:
        for value in _PATIENT_IDS:
            uid = new_uid()
            data = wire.data_set(uid, patient_id=value)
            peer.send(*wire.message(wire.IMAGE_CONTEXT, wire.store_command(uid), data))
            assert peer.answer().status == 0
            stage.receiver.acknowledged[uid] = data
        peer.release()


_TITLES: Final[tuple[bytes, ...]] = (
    b"../../hostile",
    b"/tmp/hostile",
    b"A\nERROR hostil",
    b"\x1b[31mhostile",
    b"\xff\xfe\xfd",
    bytes(16),
    b" " * 16,
    "HOST\u202eile".encode(),
    b"%s%n{0}$(x)",
)


def hostile_titles(stage: Stage) -> None:
    """Call ourselves something odd: let in or not, it is neither a path nor a line of the log."""
    for title in _TITLES:
        with stage.connected() as peer:
            end = peer.associate(wire.association_request(calling=title))
            if end is None:
                uid = new_uid()
                peer.send(*wire.store_message(uid))
                assert peer.answer().status == 0
                stage.receiver.acknowledged[uid] = wire.data_set(uid)
                peer.release()
            else:
                assert end.how in {"rejected", "abort"}


def wrong_called_titles(stage: Stage) -> None:
    for title in (b"SOMEBODY", b"airflow", b"AIRFLOW1", *_TITLES):
        with stage.connected() as peer:
            end = peer.associate(wire.association_request(called=title))
            assert end is not None
            # PS3.8 table 9-21: rejected for good by the service user, called AE title not recognised.
            assert (end.how, end.reason) == ("rejected", (1, 1, 7)) or end.how == "abort", (title, end)


_SYNTAXES: Final[tuple[bytes, ...]] = (
    b"../../hostile",
    b"1.2\nERROR hostile",
    b"\x1b[31mhostile",
    b"\xff\xfe\xfd",
    b"1.2.3\x00/../hostile",
    "1\u20242\u20243".encode(),
    b"",
)


def hostile_syntaxes(stage: Stage) -> None:
    """Put what is no UID, or no name, in each place of a request that is for one."""
    image, implicit = uids.RT_IMAGE.encode(), uids.IMPLICIT_VR_LITTLE_ENDIAN.encode()

    def context(abstract: bytes, transfer: bytes) -> bytes:
        return wire.item(0x20, b"\x05\0\0\0" + wire.item(0x30, abstract) + wire.item(0x40, transfer))

    right = context(image, implicit).replace(b"\x05", b"\x07", 1)
    for value in _SYNTAXES:
        for request in (
            wire.association_request(contexts=[right, context(value, implicit)]),
            wire.association_request(contexts=[right, context(image, value)]),
            wire.association_request(contexts=[right], application=wire.item(0x10, value)),
        ):
            with stage.connected() as peer:
                end = peer.associate(request)
                # Not this context, or nothing at all.
                assert (5 not in peer.accepted) if end is None else end.how in {"rejected", "abort"}
        for item in (wire.item(0x52, value), wire.item(0x55, value[:16])):
            with stage.connected() as peer:
                end = peer.associate(wire.association_request(user=wire.item(0x50, wire.item(0x51, bytes(4)) + item)))
                # Who calls does not have to know his own name.
                assert end is None or end.how in {"rejected", "abort"}


ROWS: Final = (
    Attack(
        name="no-uids",
        what=f"{len(_NO_UIDS)} SOP Instance UIDs that are none: `../`, absolute, NUL, line ends, reserved names, "
        "Unicode dots and digits",
        holds="0xC000 each; nothing is stored; none is in the log",
        play=no_uids,
        over=(PLAIN,),
        never_logged=("zqplanted", "outside.dcm", "\x1b"),
    ),
    Attack(
        name="uids-too-long",
        what="SOP Instance UIDs of 65 to 4,000 characters",
        holds="0xC000 each; nothing is stored",
        play=too_long,
        never_logged=("zqplanted", "1" * 65, "9" * 65),
    ),
    Attack(
        name="odd-uids",
        what="SOP Instance UIDs with leading zeros, and of 64 characters",
        holds="stored, inside of the spool",
        play=odd_uids,
    ),
    Attack(
        name="differing-uids",
        what="SOP Instance or Class UIDs in the data set that differ from the command's, or are not there",
        holds="0xA900 each; nothing is stored",
        play=differing_uids,
    ),
    Attack(
        name="hostile-patient-ids",
        what="Patient IDs with slashes, `..`, NUL and line ends, and of 5,000 characters",
        holds="stored byte for byte, inside of the spool; none is in the log",
        play=hostile_patient_ids,
        never_logged=("zqplanted", "Z" * 20),
    ),
    Attack(
        name="hostile-calling-titles",
        what="calling AE titles with slashes, line ends, escape sequences, NULs and bytes that are no ASCII",
        holds="let in or refused; nothing outside of the spool; each line of the log is one of ours",
        play=hostile_titles,
        never_logged=("\x1b", "\u202e"),
    ),
    Attack(
        name="hostile-syntaxes",
        what="what is no UID, or no name, in each place of an association request that is for one",
        holds="such a context is not accepted, or the association is refused; none of it is in the log",
        play=hostile_syntaxes,
        never_logged=("hostile", "\x1b", "\u2024"),
    ),
    Attack(
        name="wrong-called-titles",
        what="called AE titles that are not ours, ordinary and hostile ones",
        holds="rejected, called AE title not recognised (1/1/7)",
        play=wrong_called_titles,
        never_logged=("\x1b", "\u202e"),
    ),
)
