"""Managers by name, within a process: tosc.publish() and tosc.shared()."""
# SPDX-License-Identifier: Apache-2.0
import gc
import weakref

import pytest

import tosc


@pytest.fixture
def manager():
    return tosc.Manager(tosc.InprocBackend())


def test_the_very_same_manager_is_found(manager):
    tosc.publish('one', manager)
    assert tosc.shared('one') is manager
    tosc.publish('one', None)
    with pytest.raises(LookupError):
        tosc.shared('one')


def test_a_second_replaces_the_first(manager):
    other = tosc.Manager(tosc.InprocBackend())
    tosc.publish('one', manager)
    tosc.publish('one', other)
    assert tosc.shared('one') is other
    tosc.publish('one', None)


def test_what_is_published_is_kept_alive_until_it_is_taken_back():
    manager = tosc.Manager(tosc.InprocBackend())
    tosc.publish('kept', manager)
    watch = weakref.ref(manager)
    del manager
    gc.collect()
    tosc.shared('kept').write([1])
    tosc.publish('kept', None)
    gc.collect()
    assert watch() is None


def test_an_unknown_name_is_told_with_those_that_there_are(manager):
    with pytest.raises(LookupError, match="'counters'.*nor is any other"):
        tosc.shared('counters')
    tosc.publish('zebra', manager)
    tosc.publish('ape', manager)
    with pytest.raises(LookupError, match=r"'counters'.*\['ape', 'zebra'\]"):
        tosc.shared('counters')
    tosc.publish('zebra', None)
    tosc.publish('ape', None)


def test_taking_back_what_is_not_there_is_nothing():
    tosc.publish('nothing', None)


@pytest.mark.parametrize('arguments', [(), ('one',), (1, None), (b'one', None), ('one', 5),
                                       ('one', object), ('one', None, None)])
def test_wrong_arguments_of_publish(arguments):
    with pytest.raises(TypeError):
        tosc.publish(*arguments)


@pytest.mark.parametrize('arguments', [(), (1,), (None,), (b'one',), ('one', 'two')])
def test_wrong_arguments_of_shared(arguments):
    with pytest.raises(TypeError):
        tosc.shared(*arguments)


def test_a_subclass_of_manager_is_one():
    class Mine(tosc.Manager):
        pass

    mine = Mine(tosc.InprocBackend())
    tosc.publish('mine', mine)
    assert tosc.shared('mine') is mine
    tosc.publish('mine', None)
