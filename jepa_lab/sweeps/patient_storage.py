"""Optuna's storage in a database that may be restarted at any moment.

Each call is repeated until the database answers. The connection may have broken after the server's commit and before
its answer, so every call must come out the same when it is carried out twice:

- Attributes, intermediate values and parameters are set under a key, and setting one again changes nothing.
- A new trial carries a name of its own, by which a repeated call finds it (`FindingStorage`).
- A trial that is to be begun or ended, and already is, was begun or ended by the lost call: a sweep has one parent.
- A study that exists already is found by its name.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Container, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from jepa_lab.sweeps.answer_limit import AnswerLimit
from jepa_lab.sweeps.outages import Patience

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy
    from sqlalchemy.orm import Session

Answer = TypeVar("Answer")
_CREATION = "jepa_lab:creation"
"""System attribute of a trial: the name of the call that made it."""


class FindingStorage(RDBStorage):
    """Optuna's storage in a database; a call that makes a trial finds it if it has been made already.

    It looks where Optuna holds the study's row, which the transaction of a lost call keeps until it is over: to look
    any earlier could miss a commit that is still under way. (Optuna also repeats the call by itself, after deadlocks.)
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        super().__init__(url, engine_kwargs)
        self._tried: set[str] = set()

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        assert template_trial is not None, "PatientStorage gives one"
        creation = template_trial.system_attrs[_CREATION]
        made = _made_by(creation, study_id, session) if creation in self._tried else None
        self._tried.add(creation)
        return super()._get_prepared_new_trial(study_id, template_trial, session) if made is None else made


def _made_by(creation: str, study_id: int, session: Session) -> models.TrialModel | None:
    attribute = models.TrialSystemAttributeModel
    return (
        session.query(models.TrialModel)
        .join(attribute)
        .filter(models.TrialModel.study_id == study_id)
        .filter(attribute.key == _CREATION, attribute.value_json == json.dumps(creation))
        .one_or_none()
    )


class PatientStorage(BaseStorage):
    """Repeats the calls of a storage until they are answered.

    Args:
        inner: raises `Unanswered`. name: of the database, without credentials.
        limit: of the time for one answer.
    """

    def __init__(self, inner: BaseStorage, name: str, patience: Patience, limit: AnswerLimit) -> None:
        self._inner, self._name, self._patience, self._limit = inner, name, patience, limit

    def _answer(self, call: Callable[[], Answer]) -> Answer:
        """Of a call that may be carried out twice."""
        return self._patience.until_answered(self._name, lambda again: self._limited(call))

    def _limited(self, call: Callable[[], Answer]) -> Answer:
        with self._limit.kept():
            return call()

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        def create(again: bool) -> int:
            try:
                return self._limited(lambda: self._inner.create_new_study(directions, study_name))
            except DuplicatedStudyError:
                if not again or study_name is None:
                    raise
                return self.get_study_id_from_name(study_name)

        return self._patience.until_answered(self._name, create)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        made = create_trial(state=TrialState.RUNNING) if template_trial is None else deepcopy(template_trial)
        made.system_attrs = {**made.system_attrs, _CREATION: uuid.uuid4().hex}
        return self._answer(lambda: self._inner.create_new_trial(study_id, made))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        def is_done() -> bool:
            trial = self.get_trial(trial_id)
            return trial.state == state and (values is None or trial.values == list(values))

        def set_it(again: bool) -> bool:
            try:
                was_set = self._limited(lambda: self._inner.set_trial_state_values(trial_id, state, values))
            except UpdateFinishedTrialError:
                if again and is_done():
                    return True
                raise
            return was_set or (again and is_done())

        return self._patience.until_answered(self._name, set_it)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._answer(lambda: self._inner.set_trial_param(trial_id, param_name, param_value_internal, distribution))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._answer(lambda: self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._answer(lambda: self._inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._answer(lambda: self._inner.set_trial_system_attr(trial_id, key, value))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._answer(lambda: self._inner.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._answer(lambda: self._inner.set_study_system_attr(study_id, key, value))

    def delete_study(self, study_id: int) -> None:
        self._answer(lambda: self._inner.delete_study(study_id))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._answer(lambda: self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._answer(lambda: self._inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._answer(lambda: self._inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._answer(lambda: self._inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._answer(lambda: self._inner.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._answer(self._inner.get_all_studies)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._answer(lambda: self._inner.get_trial_id_from_study_id_trial_number(study_id, trial_number))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._answer(lambda: self._inner.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._answer(lambda: self._inner.get_all_trials(study_id, deepcopy, states))

    def remove_session(self) -> None:
        self._inner.remove_session()
