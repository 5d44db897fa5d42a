"""The steps behind :class:`.aria.AriaQAImagesOperator`: find, retrieve, decide what the answers left open, judge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_varian.errors import DicomError, IncompleteRetrievalError
from airflow_provider_varian.hooks.settings import below
from airflow_provider_varian.operators.identity import retrieval_id
from airflow_provider_varian.operators.qa_result import QADay, QAResult
from airflow_provider_varian.operators.retrieving import Retrieving
from airflow_provider_varian.operators.run_window import run_window_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_varian.aria.machines import Machine
    from airflow_provider_varian.aria.plans import PlanRef
    from airflow_provider_varian.aria.qa_images import QAImage, Selection
    from airflow_provider_varian.dimse.cancellation import Cancellation
    from airflow_provider_varian.hooks.dicom import DicomHook
    from airflow_provider_varian.retrieval.ledger import Entry
    from airflow_provider_varian.retrieval.request import Expected, Relist
    from airflow_provider_varian.retrieval.retrieve import OnChange, RetrievalResult

log = logging.getLogger(__name__)

#: Plans are read for their beams. They may change under the same UID, so the name holds their date and time: a
#: plan that changed is fetched again, an old version is kept.
PLAN_LAYOUT: Final = "{SOPInstanceUID}.{RTPlanDate}.{RTPlanTime}"


@dataclass(slots=True, kw_only=True)
class _Here:
    """What of the wanted images is here, by SOP Instance UID."""

    verified: dict[str, int]
    manifest_uri: str
    counts: dict[str, int]
    warnings: list[str]
    error: DicomError | None
    owed: int


def qa_images_of(
    context: Context,
    hook: DicomHook,
    machine: Machine,
    *,
    first_day: str | None,
    last_day: str | None,
    lookback_days: int,
    root: ObjectStoragePath,
    layout: str,
    retrieving: Retrieving,
    on_change: OnChange,
    cancellation: Cancellation,
) -> QAResult:
    """Retrieve the QA images of a machine's run and judge each of its days.

    :param context: Airflow's context.
    :param hook: the machine's peer.
    :param machine: what to look for, and what is expected.
    :param first_day: see :func:`.run_window.run_window_of`.
    :param last_day: the same.
    :param lookback_days: days before the interval that are listed and judged again.
    :param root: the destination.
    :param layout: where an image is filed below it.
    :param retrieving: how images, and the plan when its beams count, are retrieved. ``stable_counts`` and
        ``stable_interval_seconds`` hold for the lists of images too.
    :param on_change: called with the manifest of the images each time that it was written.
    :param cancellation: stops it from outside.
    :raises DicomError: when plan or images cannot be found or retrieved at all.
    """
    from airflow_provider_varian.aria.expectation import judge
    from airflow_provider_varian.aria.plans import find_plan
    from airflow_provider_varian.aria.qa_images import Selection, find_qa_images
    from airflow_provider_varian.query.window import clinic_zone

    zone = clinic_zone(hook.peer.timezone)
    run = run_window_of(context["dag_run"], zone, first_day=first_day, last_day=last_day, lookback_days=lookback_days)
    log.info("Listing %s to %s; %s sets the state", run.days[0], run.days[-1], run.run_day)
    with hook.find_session(cancellation=cancellation) as session:
        plan, about_plans = find_plan(session, machine.patient_id, machine.plan_label, machine.course)
        listed = partial(
            find_qa_images,
            plan=plan,
            window=run.window,
            images=machine.images,
            kv=machine.kv,
            zone=zone,
            stable_counts=retrieving.stable_counts,
            stable_interval_seconds=retrieving.stable_interval_seconds,
            cancellation=cancellation,
        )
        found, about_images = listed(session)

    def find_again() -> list[QAImage]:
        with hook.find_session(cancellation=cancellation) as session:
            return listed(session)[0]

    retriever = _Retriever(context, hook, root, retrieving, cancellation)
    selection = Selection(
        plan_uid=plan.sop_instance_uid, window=run.window, zone=zone, images=machine.images, kv=machine.kv
    )
    images, here = retriever.images(
        found, layout, selection, on_change, find_again=find_again, beams_count=machine.expected.each_beam_once
    )
    beams = retriever.beams(plan) if machine.expected.each_beam_once else None
    days = []
    for day in run.days:
        of_day = [image for image in images if image.day == day]
        judgement = judge(
            machine.name,
            day,
            of_day,
            machine.expected,
            plan_beams=beams,
            received=set(here.verified),
            owed=here.owed if day == run.run_day else 0,
        )
        size = sum(here.verified.get(image.sop_instance_uid, 0) for image in of_day)
        days.append(QADay(judgement=judgement, expected=machine.expected.expects(day), size=size))
    return QAResult(
        run_day=run.run_day,
        days=tuple(days),
        manifest_uri=here.manifest_uri,
        counts=here.counts,
        warnings=tuple(dict.fromkeys((*about_plans, *about_images, *here.warnings, *_undated(images)))),
        error=here.error,
    )


def _undated(images: Iterable[QAImage]) -> list[str]:
    count = sum(image.day is None for image in images)
    return [f"{count} images without a readable acquisition date count for no day"] if count else []


class _Retriever:
    """Brings images, and the plan when its beams count."""

    def __init__(
        self,
        context: Context,
        hook: DicomHook,
        root: ObjectStoragePath,
        retrieving: Retrieving,
        cancellation: Cancellation,
    ) -> None:
        self._context = context
        self._hook = hook
        self._root = root
        self._retrieving = retrieving
        self._cancellation = cancellation

    def images(
        self,
        found: list[QAImage],
        layout: str,
        selection: Selection,
        on_change: OnChange,
        *,
        find_again: Callable[[], list[QAImage]],
        beams_count: bool,
    ) -> tuple[list[QAImage], _Here]:
        """Retrieve what was found; return the images that are wanted, and what of them is here.

        After the transfer the images are looked for again: those that are new then are retrieved and count too.

        With ``beams_count`` the object tells its beam where the peer did not.

        Nothing found is a retrieval too: its manifest says so, to those who look for one.
        """
        from airflow_provider_varian.aria.qa_images import unique_images
        from airflow_provider_varian.retrieval.outcome import State

        found = list(found)

        def relist() -> tuple[Expected, ...]:
            named = {image.sop_instance_uid for image in found}
            found.extend(image for image in find_again() if image.sop_instance_uid not in named)
            return _expected(found)

        result = self._retrieve(_expected(found), self._root, layout, on_change=on_change, relist=relist)
        entries = result.manifest.ledger.entries
        named = {image.sop_instance_uid for image in found}
        kept = [entry for uid, entry in entries.items() if uid not in named]
        wanted = unique_images((*self._decided(found, entries, selection, beams_count), *self._kept(kept, selection)))
        uids = {image.sop_instance_uid for image in wanted}
        here = _Here(
            verified={
                uid: entry.bytes or 0 for uid, entry in entries.items() if uid in uids and entry.state is State.VERIFIED
            },
            manifest_uri=str(below(self._root, str(result.manifest.path))),
            counts=result.counts,
            warnings=list(result.manifest.warnings),
            error=result.error,
            owed=sum(not entry.is_here for entry in kept),
        )
        if result.error is not None:
            here.warnings.append(str(result.error))
        return wanted, here

    def beams(self, plan: PlanRef) -> tuple[int, ...]:
        """Return the beam numbers of the plan, from the object itself.

        :raises IncompleteRetrievalError: when the plan does not come.
        """
        from airflow_provider_varian.aria.plans import beam_numbers
        from airflow_provider_varian.retrieval.request import Expected

        expected = Expected(
            sop_instance_uid=plan.sop_instance_uid,
            sop_class_uid=plan.sop_class_uid,
            study_instance_uid=plan.study_instance_uid,
            series_instance_uid=plan.series_instance_uid,
            values={
                "SOPInstanceUID": plan.sop_instance_uid,
                "RTPlanDate": plan.plan_date,
                "RTPlanTime": plan.plan_time,
            },
        )
        root = below(self._root, ".dicom", "plans")
        # An ID of its own, and another one once the plan was changed: what a killed try left of one retrieval is
        # not taken for the other's, and an old version of the plan not for the new one.
        part = f"plan {plan.sop_instance_uid} {plan.plan_date} {plan.plan_time}"
        result = self._retrieve((expected,), root, PLAN_LAYOUT, part=part)
        entry = result.manifest.ledger.entries[plan.sop_instance_uid]
        if not entry.is_here:
            raise IncompleteRetrievalError(
                f"the plan itself did not come, so its beams are not known: {result.manifest.message}",
                peer=self._hook.peer.name,
                step="machine QA",
                hint="Expect a minimum of images instead of each_beam_once, if this plan cannot be exported",
            )
        return beam_numbers(_head(root, entry))

    def _retrieve(
        self,
        expected: tuple[Expected, ...],
        root: ObjectStoragePath,
        layout: str,
        on_change: OnChange | None = None,
        part: str = "",
        relist: Relist | None = None,
    ) -> RetrievalResult:
        from airflow_provider_varian.query.level import Level
        from airflow_provider_varian.retrieval.request import RetrievalRequest

        return self._hook.retrieve(
            RetrievalRequest(level=Level.IMAGE, expected=expected, relist=relist),
            retrieval_id=retrieval_id(self._context, part),
            destination=root,
            layout=layout,
            on_change=on_change,
            cancellation=self._cancellation,
            **asdict(self._retrieving),
        )

    def _decided(
        self, found: list[QAImage], entries: dict[str, Entry], selection: Selection, beams_count: bool
    ) -> Iterable[QAImage]:
        """Yield the wanted images; what the answer left open is decided by the object, once it is here."""
        for image in found:
            entry = entries[image.sop_instance_uid]
            is_open = image.undecided or (beams_count and image.beam_number is None)
            if not is_open or not entry.is_here:
                yield image
                continue
            decided = selection.of_object(_head(self._root, entry))
            if decided is None:
                log.info(
                    "%s is not wanted, as the object itself says; it stays at %s", entry.sop_instance_uid, entry.path
                )
            else:
                yield decided

    def _kept(self, kept: Iterable[Entry], selection: Selection) -> Iterable[QAImage]:
        """Yield what an earlier try found, the list does not name any more, and is here: the object says its day."""
        for entry in kept:
            if entry.is_here and (decided := selection.of_object(_head(self._root, entry))) is not None:
                yield decided


def _expected(images: Iterable[QAImage]) -> tuple[Expected, ...]:
    from airflow_provider_varian.retrieval.request import Expected

    return tuple(
        Expected(
            sop_instance_uid=image.sop_instance_uid,
            sop_class_uid=image.sop_class_uid,
            study_instance_uid=image.study_instance_uid,
            series_instance_uid=image.series_instance_uid,
            values=_layout_values(image),
        )
        for image in images
    )


def _layout_values(image: QAImage) -> dict[str, Any]:
    values = {
        "SOPInstanceUID": image.sop_instance_uid,
        "SeriesInstanceUID": image.series_instance_uid,
        "StudyInstanceUID": image.study_instance_uid,
        "AcquisitionDate": image.acquisition_date,
        "AcquisitionTime": image.acquisition_time,
        "Modality": "RTIMAGE",
    }
    return {keyword: value for keyword, value in values.items() if value}


def _head(root: ObjectStoragePath, entry: Entry) -> Any:
    """Read an object without its pixels."""
    from pydicom import dcmread

    from airflow_provider_varian.retrieval.destination import Destination

    with Destination(root).local_copy(PurePosixPath(entry.path)) as path:
        return dcmread(path, stop_before_pixels=True)
