"""What is wrong with manifests: checks that the doctor and the gate before a training share."""
