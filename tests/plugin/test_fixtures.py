"""The handles: look, clean and judge from inside a test."""

import pytest


def test_a_snapshot_shows_what_is_in_use(suite):
    suite.write("""
        def test_it(gpu_clean):
            buffer = allocate(4 * MiB)
            assert gpu_clean.snapshot().allocated_bytes("fake:0") == 4 * MiB
            assert gpu_clean.snapshot().allocated_bytes("fake:1") == 0
            del buffer
            assert gpu_clean.snapshot().allocated_bytes("fake:0") == 0
    """)
    suite.run().assert_outcomes(passed=1)


def test_the_peak_is_the_most_since_the_fixtures_setup(suite):
    suite.write("""
        def test_before():
            allocate(64 * MiB)

        def test_it(gpu_clean):
            allocate(8 * MiB)
            small = allocate(4 * MiB)
            assert gpu_clean.peak == 8 * MiB
    """)
    suite.run().assert_outcomes(passed=2)


def test_cleaning_by_hand_collects_and_tells_what_came_back(suite):
    suite.write("""
        import gc

        @pytest.mark.parametrize("level", ["quick", "comprehensive"])
        def test_it(gpu_clean, level):
            gc.disable()  # else it may come before us
            node = [allocate(4 * MiB)]
            node.append(node)
            del node
            result = gpu_clean.clean(level)
            gc.enable()
            assert result.level == level
            # Other tests of this process may have used the simulated accelerator, which has a cache.
            found = {step.name: step.given_back["fake:0"] for step in result.steps if step.given_back.get("fake:0")}
            assert found == {"garbage": 4 * MiB}
            assert result.given_back_bytes >= 4 * MiB
            assert gpu_clean.snapshot().allocated_bytes("fake:0") == 0
    """)
    suite.run().assert_outcomes(passed=2)


def test_a_level_that_is_none_is_refused(suite):
    suite.write("""
        def test_it(gpu_clean):
            with pytest.raises(ValueError, match="gpu_clean.clean.*'fast' is not one of quick, comprehensive"):
                gpu_clean.clean("fast")
    """)
    suite.run().assert_outcomes(passed=1)


def test_what_is_to_be_called_is_called_at_cleanup_the_last_first(suite):
    suite.write("""
        CALLS = []

        def test_it(gpu_clean):
            gpu_clean.on_cleanup(lambda: CALLS.append(1))

            @gpu_clean.on_cleanup
            def second():
                CALLS.append(2)

            assert CALLS == []

        def test_after():
            assert CALLS == [2, 1]
    """)
    suite.run().assert_outcomes(passed=2)


def test_what_is_to_be_called_may_free_what_would_be_a_leak(suite):
    suite.write("""
        def test_it(gpu_clean):
            KEPT.append(allocate(4 * MiB))
            gpu_clean.on_cleanup(KEPT.clear)
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1)


def test_a_callable_that_raises_is_told_and_the_others_are_called(suite):
    suite.write("""
        def fails():
            raise ValueError("not mine")

        def test_it(gpu_clean):
            KEPT.append(allocate(4 * MiB))
            gpu_clean.on_cleanup(KEPT.clear)
            gpu_clean.on_cleanup(fails)
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["TROUBLE test_it.py::test_it: on_cleanup fails failed: ValueError: not mine"])


def test_what_cannot_be_called_is_refused(suite):
    suite.write("""
        def test_it(gpu_clean):
            with pytest.raises(TypeError, match="gpu_clean.on_cleanup.*3 is not callable"):
                gpu_clean.on_cleanup(3)
    """)
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_wider_handle_cleans_at_the_end_of_its_scope(suite, scope):
    suite.write(f"""
        import fakegpu

        class TestIt:
            def test_first(self, gpu_clean_{scope}):
                KEPT.append(allocate(512 * KiB))
                gpu_clean_{scope}.on_cleanup(lambda: print("CLEANED"))
                gpu_clean_{scope}.on_cleanup(KEPT.clear)

            def test_last(self, gpu_clean_{scope}):
                assert KEPT
                print("LAST")
    """)
    result = suite.run("-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*LAST", "*CLEANED"])
    assert result.stdout.str().count("CLEANED") == 1


def test_asking_for_a_handle_cleans_also_where_cleaning_is_off(suite):
    suite.conftest("""
        class Telling:
            name = "telling"

            def clean(self, occasion):
                print("CLEANED", occasion.level)
                return "done"

        def pytest_gpuclean_cleaners(config):
            return [Telling()]
    """)
    suite.write("""
        def test_it(gpu_clean):
            pass

        def test_other():
            pass
    """)
    assert suite.run("-s").stdout.str().count("CLEANED quick") == 1


def test_a_handle_that_is_asked_for_in_the_middle_of_a_test_works(suite):
    suite.write("""
        CALLS = []

        def test_it(request):
            handle = request.getfixturevalue("gpu_clean")
            buffer = allocate(4 * MiB)
            assert handle.snapshot().allocated_bytes("fake:0") == 4 * MiB
            handle.on_cleanup(lambda: CALLS.append(1))

        def test_after():
            assert CALLS == [1]
    """)
    suite.run().assert_outcomes(passed=2)


def test_a_fixture_of_ones_own_may_ask_for_the_handle(suite):
    suite.write("""
        @pytest.fixture
        def device(gpu_clean):
            gpu_clean.on_cleanup(KEPT.clear)
            return gpu_clean

        def test_it(device):
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1)


def test_a_block_that_leaks_fails_at_its_end(suite):
    suite.write("""
        def test_it(gpu_clean):
            with gpu_clean.no_leak():
                KEPT.append(allocate(4 * MiB))
            print("NEVER")
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*gpuclean: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB)"])
    result.stdout.no_fnmatch_line("*NEVER*")


def test_a_block_that_gives_its_memory_back_passes(suite):
    suite.write("""
        def test_it(gpu_clean):
            KEPT.append(allocate(512 * KiB))
            with gpu_clean.no_leak():
                buffer = allocate(64 * MiB)
                del buffer
    """)
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(("threshold", "outcome"), [('"8MiB"', "passed"), ('"2MiB"', "failed"), ("0", "failed")])
def test_a_block_has_a_threshold_of_its_own(suite, threshold, outcome):
    suite.write(f"""
        def test_it(gpu_clean):
            with gpu_clean.no_leak({threshold}):
                KEPT.append(allocate(4 * MiB))
            KEPT.clear()
    """)
    suite.run("--gpu-leak=off").assert_outcomes(**{outcome: 1})


def test_an_error_of_a_block_is_not_replaced_by_its_leak(suite):
    suite.write("""
        def test_it(gpu_clean):
            with gpu_clean.no_leak():
                KEPT.append(allocate(4 * MiB))
                raise KeyError("its own reason")
    """)
    result = suite.run()
    result.stdout.fnmatch_lines(["E*KeyError: 'its own reason'"])


def test_a_blocks_threshold_that_is_no_size_is_refused(suite):
    suite.write("""
        def test_it(gpu_clean):
            with pytest.raises(ValueError, match="gpu_clean.no_leak.*'lots' is no size"):
                with gpu_clean.no_leak("lots"):
                    pass
    """)
    suite.run().assert_outcomes(passed=1)


def test_handles_are_inert_where_everything_is_off(suite):
    suite.write("""
        from pytest_gpuclean import Unavailable

        CALLS = []

        def test_it(gpu_clean, gpu_clean_class, gpu_clean_module, gpu_clean_session):
            for handle in (gpu_clean, gpu_clean_class, gpu_clean_module, gpu_clean_session):
                assert handle.snapshot().readings == ()
                assert handle.clean("quick").steps == ()
                assert isinstance(handle.peak, Unavailable)
                handle.on_cleanup(lambda: CALLS.append(1))
                with handle.no_leak(0):
                    KEPT.append(allocate(4 * MiB))

        def test_after():
            assert CALLS == []
    """)
    suite.run("--gpu-clean=off").assert_outcomes(passed=2)


def test_a_peak_that_no_source_keeps_is_unavailable_and_not_0(suite):
    suite.write("""
        from pytest_gpuclean import Unavailable

        def test_it(gpu_clean):
            assert isinstance(gpu_clean.peak, Unavailable)
    """)
    suite.run("--gpu-leak-watch=host").assert_outcomes(passed=1)


def test_the_peak_of_a_real_allocator(suite, simgpu):
    suite.write("""
        import torch

        def test_it(gpu_clean):
            torch.empty(8 * MiB, dtype=torch.uint8, device="simgpu:0")
            assert gpu_clean.peak >= 8 * MiB
    """)
    suite.run().assert_outcomes(passed=1)


def test_the_peak_of_a_wider_handle_outlives_that_of_a_tests_own(suite):
    suite.write("""
        def test_first(gpu_clean_module):
            allocate(64 * MiB)

        def test_second(gpu_clean_module, gpu_clean):
            allocate(8 * MiB)
            assert gpu_clean.peak == 8 * MiB
            assert gpu_clean_module.peak == 64 * MiB
    """)
    suite.run("--gpu-clean=quick").assert_outcomes(passed=2)


def test_a_handle_takes_nothing_from_the_limit_of_its_test(suite):
    suite.write("""
        @pytest.fixture
        def before():
            allocate(64 * MiB)

        def test_it(before, gpu_clean):
            assert gpu_clean.peak == 0
    """)
    result = suite.run("--gpu-peak-limit=32MiB")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: peak 64.0 MiB on fake:0 (limit 32.0 MiB)"])
