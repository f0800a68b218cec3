"""Gradescope: what packs the autograder, and what runs there (gradescope-autograders.readthedocs.io).

pack                  writes gradescope.zip: the project without its tests, and the two files below
setup.sh              Gradescope runs it once, to build an image: it sets up what `lab/setup/provision` sets up
run_autograder        Gradescope runs it for each submission
run                   what that does: finds what was handed in, has it judged, writes results.json
"""
